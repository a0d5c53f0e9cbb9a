"""Conversations of an agent with its control plane, step by step."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.reporting import Outcome
from agent.session import (
    NEXT,
    AgentSession,
    Ask,
    Certified,
    Close,
    Command,
    Event,
    Opened,
    Received,
    Retreat,
    Send,
    SessionLimits,
    State,
    Take,
    Tick,
)
from schemas.session import FROM_AGENT, FROM_CONTROL_PLANE, MAX_AGENT_MESSAGE, ItemResult, Report

START = 1000.0
DIGEST = "sha256:" + "1" * 64
MESSAGES: dict[str, dict[str, Any]] = {
    "welcome": {"protocol": 1, "heartbeatSeconds": 20, "wantedGeneration": 3},
    "desired": {"jws": "a.b.c"},
    "certificate": {"id": "Certificate/shop/web", "reason": "NotYet"},
    "goodbye": {"reason": "ShuttingDown", "retrySeconds": 2},
}


def say(kind: str, sequence: int, **fields: Any) -> str:
    return json.dumps({"type": kind, "sequence": sequence, **MESSAGES[kind], **fields})


class Conversation:
    """Plays events into a session; after each one exactly the expected commands must have come out."""

    def __init__(self, applied: tuple[int, str | None] = (0, None)) -> None:
        self.session = AgentSession("vps-1", "0.1.0", applied, SessionLimits(welcome_seconds=15))

    def control_plane(self, message: str | bytes, *expected: Command) -> Conversation:
        return self.happens(Received(message, START), *expected)

    def happens(self, event: Event, *expected: Command) -> Conversation:
        assert list(self.session.handle(event)) == list(expected)
        return self

    def says(self, event: Event) -> dict[str, Any]:
        """Return the one message that the agent sends."""
        (command,) = self.session.handle(event)
        assert isinstance(command, Send)
        return FROM_AGENT.validate_json(command.text).model_dump(exclude_defaults=True)

    def over(self) -> None:
        assert self.session.state is State.CLOSING
        self.happens(Tick(START + 1e6)).happens(Outcome(1, DIGEST, "applied")).control_plane(say("desired", 2))


def welcomed(applied: tuple[int, str | None] = (0, None)) -> Conversation:
    conversation = Conversation(applied)
    conversation.says(Opened(START))
    return conversation.control_plane(say("welcome", 1))


def test_hello_comes_first_and_says_what_is_applied() -> None:
    """The first message names protocol, agent, version and the applied document."""
    assert Conversation((3, DIGEST)).says(Opened(START)) == {
        "sequence": 1,
        "protocol": 1,
        "agent": "vps-1",
        "version": "0.1.0",
        "applied_generation": 3,
        "applied_digest": DIGEST,
    }


def test_a_document_is_handed_out_and_its_outcome_reported() -> None:
    """Between the document and its report anything may take its time; the sequence goes on."""
    conversation = welcomed().control_plane(say("desired", 2), Take("a.b.c"))
    results = (ItemResult(id="Deployment/shop/web", state="Applied"),)
    assert conversation.says(Outcome(3, DIGEST, "applied", items=results)) == {
        "sequence": 2,
        "generation": 3,
        "digest": DIGEST,
        "outcome": "applied",
        "items": ({"id": "Deployment/shop/web", "state": "Applied"},),
    }
    assert conversation.says(Tick(START + 20)) == {"sequence": 3, "applied_generation": 3}


def test_heartbeats_follow_the_interval_of_the_welcome() -> None:
    """A beat goes out when it is due and not before, with what is measured."""
    conversation = welcomed((3, DIGEST)).happens(Tick(START + 19.9))
    beat = conversation.says(Tick(START + 20, {"load": 0.5}))
    assert beat == {"sequence": 2, "applied_generation": 3, "metrics": {"load": 0.5}}
    conversation.happens(Tick(START + 39))
    assert conversation.says(Tick(START + 41))["sequence"] == 3


def test_a_refusal_leaves_what_is_applied() -> None:
    """Only an outcome that says applied changes what the heartbeat tells."""
    conversation = welcomed((3, DIGEST))
    conversation.says(Outcome(4, DIGEST, "refused", "Expired"))
    conversation.says(Outcome(5, DIGEST, "failed", "ItemsFailed"))
    assert conversation.says(Tick(START + 20))["applied_generation"] == 3


def test_a_control_plane_that_does_not_welcome_is_left() -> None:
    """Without a welcome in time the session closes with 4408."""
    conversation = Conversation()
    conversation.says(Opened(START))
    conversation.happens(Tick(START + 14)).happens(Tick(START + 15), Close(4408, "TimedOut")).over()


def test_a_goodbye_says_when_to_come_back() -> None:
    """After a goodbye nothing counts any more."""
    welcomed().control_plane(say("goodbye", 2), Retreat(2.0, "ShuttingDown", "")).over()


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("kind", [kind for kind in MESSAGES if kind != "certificate"])  # which needs a request
def test_only_messages_of_the_table_may_come(state: State, kind: str) -> None:
    """In each state the listed messages lead to the listed state, and every other one closes without an effect."""
    conversation, sequence = (Conversation(), 1) if state is State.OPENING else (welcomed(), 2)
    if state is State.OPENING:
        conversation.says(Opened(START))
    if state is State.CLOSING:
        conversation.control_plane(b"", Close(4400, "BinaryMessage"))
    commands = list(conversation.session.handle(Received(say(kind, sequence), START)))
    following = NEXT[state].get(kind)
    if following is not None:
        assert conversation.session.state is following
    else:
        assert conversation.session.state is State.CLOSING
        assert commands == ([] if state is State.CLOSING else [Close(4400, "UnexpectedMessage")])


@pytest.mark.parametrize(
    ("message", "close"),
    [
        (say("desired", 1), Close(4400, "SequenceBroken")),
        (say("desired", 3), Close(4400, "SequenceBroken")),
        (say("desired", 2, jws=5), Close(4400, "InvalidMessage")),
        (say("goodbye", 2, retrySeconds=1e9), Close(4400, "InvalidMessage")),
        (say("goodbye", 2, reason="x" * 65), Close(4400, "InvalidMessage")),
        ("", Close(4400, "InvalidMessage")),
        ("[" * 100_000, Close(4400, "InvalidMessage")),
        (b"\xff", Close(4400, "BinaryMessage")),
        ("x" * (4 * 1024 * 1024 + 1), Close(4429, "MessageTooLarge")),
    ],
)
def test_a_bad_message_closes(message: str | bytes, close: Close) -> None:
    """Doubled, reordered, cut and giant messages end the session and hand out nothing."""
    welcomed().control_plane(message, close).over()


def test_a_protocol_that_is_not_spoken_closes() -> None:
    """A welcome to another version of the protocol ends the session with 4406."""
    conversation = Conversation()
    conversation.says(Opened(START))
    conversation.control_plane(say("welcome", 1, protocol=2), Close(4406, "UnsupportedProtocol")).over()


@pytest.mark.parametrize("state", ["Applied", "Failed"])
def test_a_report_always_fits_into_a_message(state: Any) -> None:
    """Where thousands of results have too much to say, what is not applied is told, shortened."""
    items = tuple(ItemResult(id=f"{'x' * 200}{n}", state=state, message="\u20ac" * 2000) for n in range(2000))
    (command,) = welcomed().session.handle(Outcome(1, DIGEST, "failed", "r" * 100, "m" * 5000, items))
    assert isinstance(command, Send)
    assert len(command.text.encode()) <= MAX_AGENT_MESSAGE
    report = FROM_AGENT.validate_json(command.text)
    assert isinstance(report, Report)
    assert len(report.items) == (500 if state == "Failed" else 0)


# --- certificates of services -----------------------------------------------------------------------------------------

HELD: tuple[int, str | None] = (3, DIGEST)


def ask(name: str = "web", csr: str = "csr") -> Ask:
    return Ask(f"Certificate/shop/{name}", DIGEST, csr)


def offered() -> Conversation:
    """A session whose control plane wants the document that the agent has."""
    conversation = Conversation(HELD)
    conversation.says(Opened(START))
    return conversation.control_plane(say("welcome", 1, wantedDigest=DIGEST))


def asked(sequence: int, name: str = "web", csr: str = "csr") -> Send:
    request = {"id": f"Certificate/shop/{name}", "digest": DIGEST, "csr": csr}
    text = json.dumps({"type": "certificate-request", "sequence": sequence, **request}, separators=(",", ":"))
    return Send(text)


def answer(sequence: int, name: str = "web") -> str:
    return say("certificate", sequence, id=f"Certificate/shop/{name}")


def certified(text: str) -> Certified:
    return Certified(FROM_CONTROL_PLANE.validate_json(text))  # type: ignore[arg-type]


def test_a_certificate_is_asked_for_and_its_answer_handed_out() -> None:
    """Where the wanted document is the one that is applied, a request leaves at once."""
    offered().happens(ask(), asked(2)).control_plane(answer(2), certified(answer(2)))


def test_nothing_is_asked_before_the_document_is_known_to_be_wanted() -> None:
    """A request waits for the outcome of a document that came in this session, and an older control plane gets none."""
    conversation = Conversation(HELD)
    conversation.says(Opened(START))
    conversation.happens(ask()).control_plane(say("welcome", 1, wantedDigest="sha256:" + "2" * 64)).happens(ask())
    conversation.control_plane(say("desired", 2), Take("a.b.c")).happens(ask(csr="newer"))
    assert conversation.says(Outcome(3, DIGEST, "refused", "OlderGeneration"))["outcome"] == "refused"
    report, request = conversation.session.handle(Outcome(4, DIGEST, "progressing"))
    assert isinstance(report, Send)
    assert request == asked(4, csr="newer")


def test_one_request_for_an_item_is_under_way() -> None:
    """The newest of those that came meanwhile leaves with the answer."""
    conversation = offered().happens(ask(), asked(2)).happens(ask(csr="b")).happens(ask(csr="c"))
    conversation.control_plane(answer(2), certified(answer(2)), asked(3, csr="c")).control_plane(
        answer(3), certified(answer(3))
    )


def test_few_requests_are_under_way_at_once() -> None:
    """The fifth service waits for an answer to one of the first four."""
    conversation = offered()
    for number in range(4):
        conversation.happens(ask(f"s{number}"), asked(2 + number, f"s{number}"))
    conversation.happens(ask("s4")).control_plane(answer(2, "s1"), certified(answer(2, "s1")), asked(6, "s4"))


def test_an_answer_that_nobody_asked_for_ends_the_session() -> None:
    """So does a second one."""
    offered().control_plane(answer(2), Close(4400, "UnexpectedMessage")).over()
    conversation = offered().happens(ask(), asked(2)).control_plane(answer(2), certified(answer(2)))
    conversation.control_plane(answer(3), Close(4400, "UnexpectedMessage")).over()
