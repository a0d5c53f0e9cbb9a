"""What an agent says by features, step by step."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

import pytest

from agent.reporting import Outcome
from agent.session import (
    AgentSession,
    Agreed,
    Close,
    Command,
    Event,
    Heard,
    Held,
    Offered,
    Opened,
    Published,
    Received,
    Send,
    SessionLimits,
    State,
    Take,
    Tick,
    Written,
)
from agent.talk import Say, Seen
from schemas.observation import DeploymentObservation
from schemas.session import FEATURES, FROM_AGENT, FROM_CONTROL_PLANE, CommandOutput, SecretsRequest, Usage

START = 1000.0
DIGEST = "sha256:" + "1" * 64
VERSION = "sha256:" + "2" * 64
HELD = Held(DIGEST, FEATURES)
COMMAND = "0" * 32


class Conversation:
    """A session of an agent that has a document, before the welcome."""

    def __init__(self, held: Held = HELD, knows: tuple[str, ...] = FEATURES) -> None:
        self.session = AgentSession("vps-1", "0.1.0", (3, held.digest), SessionLimits(), held=held, knows=knows)
        self.sequence = 0
        self.writes = True
        self.handed_out: list[Command] = []
        self.closed: list[Command] = []
        self.says(Opened(START))

    def says(self, *events: Event) -> list[dict[str, Any]]:
        """Return what the agent says to these, without what is empty; each message is written at once if it can be."""
        said: list[dict[str, Any]] = []
        waiting = deque(events)
        while waiting:
            for command in self.session.handle(waiting.popleft()):
                match command:
                    case Send(text):
                        FROM_AGENT.validate_json(text)
                        said.append({name: value for name, value in json.loads(text).items() if value})
                        if self.writes:
                            waiting.append(Written())
                    case Close():
                        self.closed.append(command)
                    case _:
                        self.handed_out.append(command)
        return said

    def hears(self, kind: str, now: float = START, **fields: Any) -> list[dict[str, Any]]:
        self.sequence += 1
        text = json.dumps({"type": kind, "sequence": self.sequence, **fields})
        return self.says(Received(text, now))

    def welcome(self, digest: str = DIGEST) -> list[dict[str, Any]]:
        return self.hears("welcome", protocol=1, heartbeatSeconds=20, wantedGeneration=3, wantedDigest=digest)

    def later(self, seconds: float) -> list[dict[str, Any]]:
        """Let time pass, as whoever drives the session does."""
        said, now = [], START
        while (now := max(self.session.deadline, now)) <= START + seconds:
            said += self.says(Tick(now))
        return [one for one in said if one["type"] != "heartbeat"]


def agreed(**options: Any) -> Conversation:
    conversation = Conversation(**options)
    (features,) = conversation.welcome()
    assert features["features"]
    conversation.handed_out.clear()
    return conversation


def seen(name: str, token: object = None) -> Seen:
    return Seen((DeploymentObservation(team="shop", name=name, health="healthy"),), token)


def names(said: list[dict[str, Any]]) -> list[str]:
    return [one["deployments"][0]["name"] for one in said]


def output(text: str = "", **fields: Any) -> Say:
    return Say(CommandOutput(id=COMMAND, text=text, **fields))


def fill(conversation: Conversation) -> None:
    """Let the connection take nothing more."""
    conversation.writes = False
    assert len([said for _ in range(4) for said in conversation.says(output("x"))]) == 4


def test_features_are_said_once_where_the_document_offers_them() -> None:
    """With the welcome that wants the very document, as far as they are known here."""
    conversation = Conversation(Held(DIGEST, ("observations", "commands", "telepathy")), ("observations", "secrets"))
    assert conversation.welcome() == [{"type": "features", "sequence": 2, "features": ["observations"]}]
    assert conversation.handed_out == [Agreed(frozenset({"observations"}))]
    assert conversation.says(Offered(FEATURES)) == []


def test_nothing_is_said_where_nothing_is_known_of_what_is_offered() -> None:
    """No message is sent only to say that there is nothing."""
    assert Conversation(knows=()).welcome() == []
    assert Conversation(Held(DIGEST, ("telepathy",))).welcome() == []


def test_a_control_plane_that_wants_another_document_hears_nothing_of_features() -> None:
    """It may be an older one: neither the document of before nor what becomes of it proves anything."""
    conversation = Conversation()
    assert conversation.welcome(VERSION) == []
    waiting: list[Event] = [
        seen("web"),
        Say(Usage()),
        output("text"),
        Say(SecretsRequest(id="Deployment/shop/web", version=VERSION)),
    ]
    assert conversation.says(*waiting) == []
    assert conversation.hears("desired", jws="a.b.c") == []
    assert conversation.handed_out == [Take("a.b.c")]
    assert [one["outcome"] for one in conversation.says(Outcome(3, DIGEST, "applied"))] == ["applied"]
    assert conversation.later(120) == []


def test_features_follow_a_genuine_document_that_came() -> None:
    """What was waiting for them leaves with them."""
    conversation = Conversation()
    conversation.welcome(VERSION)
    conversation.says(seen("web"))
    conversation.hears("desired", jws="a.b.c")
    said = conversation.says(Offered(("observations",)))
    assert said[0] == {"type": "features", "sequence": 2, "features": ["observations"]}
    assert names(said[1:]) == ["web"]


def test_the_newest_observation_leaves_twice_a_second_at_most() -> None:
    """At once when nothing was said for a while; what was never sent has no number."""
    conversation = agreed()
    first = conversation.says(seen("a"))
    assert (names(first), first[0]["number"]) == (["a"], 1)
    assert conversation.says(seen("b"), seen("c")) == []
    assert conversation.later(0.49) == []
    second = conversation.later(0.5)
    assert (names(second), second[0]["number"]) == (["c"], 2)
    assert conversation.later(30) == []


def test_a_publication_brings_back_the_token_of_exactly_that_observation() -> None:
    """Not of a newer one that was not published yet, and of an older one only when it comes in its turn."""
    conversation = agreed()
    for number in range(3):
        conversation.says(seen("web", f"token {number + 1}"))
        conversation.later(0.5 * (number + 1))
    conversation.hears("observation-published", number=2)
    assert conversation.handed_out == [Published("token 2")]
    conversation.hears("observation-published", number=1)
    assert conversation.handed_out == [Published("token 2")], "older than what is known already"
    conversation.hears("observation-published", number=3)
    assert conversation.handed_out == [Published("token 2"), Published("token 3")]
    conversation.hears("observation-published", number=4)
    assert conversation.closed == [Close(4400, "UnexpectedMessage")]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("observation-published", {"number": 1}),
        ("secrets", {"id": "Deployment/shop/web", "reason": "No"}),
        ("command", {"id": COMMAND, "action": "logs", "item": "Deployment/shop/web", "seconds": 5}),
        ("command-stop", {"id": COMMAND}),
    ],
)
def test_what_was_not_agreed_upon_ends_the_session(kind: str, fields: dict[str, Any]) -> None:
    """So does an answer that nobody asked for."""
    for conversation in (Conversation(knows=()), agreed(knows=("observations",))):
        if conversation.session.state is State.OPENING:
            conversation.welcome()
        conversation.hears(kind, **fields)
        assert conversation.closed == [Close(4400, "UnexpectedMessage")]


def test_commands_and_values_are_handed_out() -> None:
    """As they are, once their feature was said."""
    conversation = agreed()
    request = SecretsRequest(id="Deployment/shop/web", version=VERSION)
    (said,) = conversation.says(Say(request))
    assert said == {"type": "secrets-request", "sequence": 3, "id": "Deployment/shop/web", "version": VERSION}
    answer: dict[str, Any] = {"id": "Deployment/shop/web", "version": VERSION, "values": {"db/password": "hunter2"}}
    conversation.hears("secrets", **answer)
    (handed_out,) = conversation.handed_out
    message = FROM_CONTROL_PLANE.validate_python({"type": "secrets", "sequence": conversation.sequence, **answer})
    assert handed_out == Heard(message)  # type: ignore[arg-type]
    assert "hunter2" not in repr(handed_out)
    conversation.hears("secrets", **answer)
    assert conversation.closed == [Close(4400, "UnexpectedMessage")], "a second answer"


def test_one_request_for_secrets_of_an_item_is_under_way() -> None:
    """The newest version that is wanted leaves with the answer to the former."""
    conversation = agreed()
    item = "Deployment/shop/web"
    assert len(conversation.says(Say(SecretsRequest(id=item, version=VERSION)))) == 1
    newer = [Say(SecretsRequest(id=item, version="sha256:" + str(number) * 64)) for number in (3, 4)]
    assert conversation.says(*newer) == []
    (said,) = conversation.hears("secrets", id=item, reason="NotReady")
    assert said["version"] == "sha256:" + "4" * 64


def test_output_is_joined_and_split_to_the_size_of_messages() -> None:
    """What was written while nobody could send leaves as one; the end of it says how it ended."""
    conversation = agreed()
    fill(conversation)
    assert conversation.says(output("one\n"), output("two\n"), output("end\n", last=True, exit_code=3)) == []
    (said,) = conversation.says(Written())
    assert said["text"] == "one\ntwo\nend\n"
    assert (said["last"], said["exitCode"]) == (True, 3)
    conversation.writes = True
    conversation.says(Written(), Written(), Written(), Written())
    long = conversation.says(output("y" * 60_000, last=True, reason="Cut"))
    assert [len(one["text"]) for one in long] == [32 * 1024, 60_000 - 32 * 1024]
    assert [one.get("last", False) for one in long] == [False, True]
    assert [one.get("reason", "") for one in long] == ["", "Cut"]


def test_streams_are_not_mixed() -> None:
    """A piece is of one stream, and pieces keep their order."""
    conversation = agreed()
    fill(conversation)
    conversation.says(output("a"), output("b"), output("c", stream="stderr"), output("d"))
    said = [one for _ in range(4) for one in conversation.says(Written())]
    assert [(one["text"], one["stream"]) for one in said] == [
        ("ab", "stdout"),
        ("c", "stderr"),
        ("d", "stdout"),
    ]


def test_too_much_output_is_left_out_and_counted() -> None:
    """Nothing grows without end; the next piece says how many lines are missing before it."""
    conversation = agreed()
    fill(conversation)
    line = "z" * 1023 + "\n"
    for _ in range(1500):
        conversation.says(output(line))
    assert conversation.session.waiting(COMMAND) <= 1024 * 1024
    conversation.writes = True
    said = conversation.says(*[Written()] * 4, output("", last=True)) + conversation.later(120)
    lines = sum(one.get("text", "").count("\n") for one in said)
    dropped = sum(one.get("dropped", 0) for one in said)
    assert 0 < dropped < 1500
    assert lines + dropped == 1500
    assert said[-1]["last"]


def test_a_command_that_nobody_waits_for_says_nothing_more() -> None:
    """Whatever it wrote is forgotten with it."""
    conversation = agreed()
    fill(conversation)
    conversation.says(output("more"))
    conversation.hears("command-stop", id=COMMAND)
    assert conversation.says(*[Written()] * 4) == []


def test_reports_in_turmoil_keep_to_the_pace_and_the_newest_is_said() -> None:
    """Of a document that changes its state all the time the control plane hears now and then, and how it ended."""
    conversation = agreed()
    said = conversation.says(*[Outcome(3, DIGEST, "progressing", message=str(number)) for number in range(500)])
    assert len(said) < 40
    said = conversation.later(2)
    assert [one["message"] for one in said] == ["499"]


def test_a_slow_connection_is_not_loaded_with_what_can_wait() -> None:
    """Reports leave; observations wait until something was written, and then the newest leaves."""
    conversation = agreed()
    fill(conversation)
    assert conversation.says(seen("a"), seen("b")) == []
    assert len(conversation.says(Outcome(3, DIGEST, "applied"))) == 1
    assert conversation.says(Written()) == []
    assert names(conversation.says(Written())) == ["b"]
