"""What the control plane hears and says by features, step by step."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import SecretStr

from reconciler.agents.extensions import MAX_WAITING, SecretsAnswered, SecretsAsked, Tell
from reconciler.agents.session import (
    WRITE_FINISHED,
    AgentSession,
    Close,
    Command,
    Event,
    Ignored,
    Observed,
    Received,
    Send,
    SessionLimits,
)
from schemas.session import FEATURES, FROM_AGENT, FROM_CONTROL_PLANE, CommandStop, ObservationPublished, SecretsAnswer

START = 1000.0
VERSION = "sha256:" + "2" * 64
COMMAND = "0" * 32
MESSAGES: dict[str, dict[str, Any]] = {
    "features": {"features": list(FEATURES)},
    "observation": {"number": 1},
    "usage": {},
    "secrets-request": {"id": "Deployment/shop/web", "version": VERSION},
    "command-output": {"id": COMMAND, "text": "line\n"},
}
OF_FEATURES = [kind for kind in MESSAGES if kind != "features"]


class Conversation:
    """A session of an agent that said hello."""

    def __init__(self, features: tuple[str, ...] | None = FEATURES) -> None:
        self.session = AgentSession("vps-1", SessionLimits(), START)
        self.sequence = 0
        self.says("hello", protocol=1, agent="vps-1", version="0.1.0")
        self.happens(WRITE_FINISHED)
        if features is not None:
            (observed,) = self.says("features", features=list(features))
            assert isinstance(observed, Observed)

    def says(self, kind: str, **fields: Any) -> list[Command]:
        self.sequence += 1
        text = json.dumps({"type": kind, "sequence": self.sequence, **MESSAGES.get(kind, {}), **fields})
        return self.happens(Received(text, START))

    def happens(self, event: Event) -> list[Command]:
        return list(self.session.handle(event))

    def sent(self, event: Event) -> dict[str, Any]:
        """Return the one message that goes out."""
        (command,) = self.happens(event)
        assert isinstance(command, Send)
        FROM_CONTROL_PLANE.validate_json(command.text)
        message: dict[str, Any] = json.loads(command.text)
        return message


def published(number: int) -> Tell:
    return Tell(ObservationPublished(number=number))


def answer(**fields: Any) -> SecretsAnswered:
    return SecretsAnswered(SecretsAnswer(id="Deployment/shop/web", **fields))


@pytest.mark.parametrize("kind", OF_FEATURES)
def test_what_a_feature_brings_is_heard_once_it_was_said(kind: str) -> None:
    """Without any features, or with another one, it ends the session."""
    (heard,) = Conversation().says(kind)
    assert isinstance(heard, Observed | SecretsAsked)
    mine = {"secrets-request": "secrets", "command-output": "commands"}.get(kind, "observations")
    others = tuple(feature for feature in FEATURES if feature != mine)
    for conversation in (Conversation(None), Conversation(()), Conversation(others)):
        assert conversation.says(kind) == [Close(4400, "UnexpectedMessage")]


def test_features_are_said_once() -> None:
    """A second time ends the session, and so does a time before hello."""
    assert Conversation().says("features") == [Close(4400, "UnexpectedMessage")]
    session = AgentSession("vps-1", SessionLimits(), START)
    text = json.dumps({"type": "features", "sequence": 1, "features": []})
    assert list(session.handle(Received(text, START))) == [Close(4400, "UnexpectedMessage")]


def test_features_of_a_later_version_are_left_out() -> None:
    """An agent may know more than this control plane does."""
    conversation = Conversation(("telepathy", "commands"))
    assert conversation.session.knows("command")
    assert not conversation.session.knows("secrets")


def test_an_agent_without_the_feature_is_told_nothing() -> None:
    """It would end the session over a message that it does not know."""
    for conversation in (Conversation(None), Conversation(("secrets",))):
        assert conversation.happens(published(1)) == []
        assert conversation.happens(WRITE_FINISHED) == []


def test_what_is_told_waits_for_room_in_its_order() -> None:
    """One message is being written at a time; each gets the next number when it leaves."""
    conversation = Conversation()
    first = conversation.sent(published(1))
    assert conversation.happens(published(2)) == []
    assert conversation.happens(Tell(CommandStop(id=COMMAND))) == []
    second, third = conversation.sent(WRITE_FINISHED), conversation.sent(WRITE_FINISHED)
    assert [one["sequence"] for one in (first, second, third)] == [2, 3, 4]
    assert [one["type"] for one in (first, second, third)] == [
        "observation-published",
        "observation-published",
        "command-stop",
    ]
    assert conversation.happens(WRITE_FINISHED) == []


def test_an_agent_that_takes_nothing_is_left() -> None:
    """What waits for it is bounded."""
    conversation = Conversation()
    conversation.happens(published(1))
    for number in range(MAX_WAITING):
        assert conversation.happens(published(number + 2)) == []
    assert conversation.happens(published(MAX_WAITING + 2)) == [Close(4429, "TooMuchToTell")]


def test_older_observations_count_for_nothing() -> None:
    """The newest is the whole truth, whatever comes after it."""
    conversation = Conversation()
    text = FROM_AGENT.validate_python({"type": "observation", "sequence": 3, "number": 5})
    assert conversation.says("observation", number=5) == [Observed(text)]  # type: ignore[arg-type]
    for number in (5, 4):
        assert conversation.says("observation", number=number) == [Ignored("OlderObservation")]


def test_secrets_are_asked_for_once_an_item_until_they_are_answered() -> None:
    """The answer has values on the wire and nowhere else."""
    conversation = Conversation()
    (asked,) = conversation.says("secrets-request")
    assert isinstance(asked, SecretsAsked)
    assert conversation.says("secrets-request") == [Ignored("AlreadyAsked")]
    event = answer(version=VERSION, values={"db/password": SecretStr("hunter2")})
    assert "hunter2" not in repr(event)
    assert conversation.sent(event)["values"] == {"db/password": "hunter2"}
    (again,) = conversation.says("secrets-request")
    assert isinstance(again, SecretsAsked)


def test_more_requests_for_secrets_than_an_agent_may_have_under_way_end_the_session() -> None:
    """Nobody makes the control plane open values without end."""
    conversation = Conversation()
    for number in range(SessionLimits().max_asked):
        (asked,) = conversation.says("secrets-request", id=f"Deployment/shop/s{number}")
        assert isinstance(asked, SecretsAsked)
    assert conversation.says("secrets-request", id="Deployment/shop/last") == [Close(4429, "TooManyRequests")]
