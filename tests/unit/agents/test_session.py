"""Conversations of the control plane with one agent, step by step."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.agents.delivery import KNOWN_DOCUMENTS, Wanted
from reconciler.agents.session import (
    NEXT,
    WRITE_FINISHED,
    AgentSession,
    Answered,
    Asked,
    Close,
    Command,
    Dismissed,
    Event,
    Ignored,
    Lost,
    Observed,
    Received,
    Send,
    SessionLimits,
    State,
    Tick,
)
from schemas.session import FROM_AGENT, CertificateAnswer, CloseCode, Desired

START = 1000.0
LIMITS = SessionLimits(hello_seconds=10, heartbeat_seconds=20, silence_seconds=65, burst=20, messages_per_second=1)
MESSAGES: dict[str, dict[str, Any]] = {
    "hello": {"protocol": 1, "agent": "vps-1", "version": "0.1.0"},
    "report": {"generation": 3, "digest": "sha256:" + "3" * 64, "outcome": "applied"},
    "heartbeat": {"appliedGeneration": 3},
    "certificate-request": {"id": "Certificate/shop/web", "digest": "sha256:" + "3" * 64, "csr": "csr"},
}


def digest(character: int | str) -> str:
    return "sha256:" + str(character) * 64


def say(kind: str, sequence: int, **fields: Any) -> str:
    return json.dumps({"type": kind, "sequence": sequence, **MESSAGES[kind], **fields})


def want(generation: int, content: int | str | None = None) -> Wanted:
    return Wanted(generation, digest(generation if content is None else content), lambda: f"jws.of.{generation}")


def observed(text: str) -> Observed:
    return Observed(FROM_AGENT.validate_json(text))  # type: ignore[arg-type]


def welcome(sequence: int = 1, generation: int = 0, content: int | str | None = None) -> Send:
    message = {
        "type": "welcome",
        "sequence": sequence,
        "protocol": 1,
        "heartbeatSeconds": 20.0,
        "wantedGeneration": generation,
        "wantedDigest": None if content is None else digest(content),
    }
    return Send(json.dumps(message, separators=(",", ":")))


def desired(sequence: int, generation: int) -> Send:
    return Send(Desired(sequence=sequence, jws=f"jws.of.{generation}").model_dump_json(by_alias=True))


class Conversation:
    """Plays events into a session; after each one exactly the expected commands must have come out."""

    def __init__(self, limits: SessionLimits = LIMITS) -> None:
        self.session = AgentSession("vps-1", limits, START)
        self.now = START

    def at(self, seconds: float) -> Conversation:
        self.now = START + seconds
        return self

    def agent(self, message: str | bytes, *expected: Command) -> Conversation:
        return self.happens(Received(message, self.now), *expected)

    def written(self, *expected: Command) -> Conversation:
        return self.happens(WRITE_FINISHED, *expected)

    def happens(self, event: Event, *expected: Command) -> Conversation:
        assert list(expected) == list(self.session.handle(event))
        return self

    def over(self) -> None:
        assert self.session.state is State.CLOSING
        self.happens(want(99)).happens(WRITE_FINISHED).happens(Tick(self.now + 1e6))
        self.agent(say("hello", 1)).agent(say("heartbeat", 2))


def started(generation: int = 3) -> Conversation:
    """A conversation in which the agent was just sent a document."""
    hello = say("hello", 1)
    return (
        Conversation()
        .happens(want(generation))
        .agent(hello, observed(hello), welcome(1, generation, generation))
        .written(desired(2, generation))
        .written()
    )


def test_an_agent_without_anything_is_welcomed_and_sent_its_document() -> None:
    """After a good hello come the welcome and, once that is written, the wanted document."""
    report = say("report", 2)
    started().agent(report, observed(report))


def test_an_agent_that_has_what_is_wanted_is_only_welcomed() -> None:
    """A hello with the wanted digest under this or a later number is answered without any document."""
    hello = say("hello", 1, appliedGeneration=9, appliedDigest=digest(7))
    conversation = Conversation().happens(want(7)).agent(hello, observed(hello), welcome(1, 7, 7)).written()
    again = say("report", 2, generation=9, digest=digest(7), outcome="failed")
    conversation.agent(again, observed(again))


def test_an_agent_that_has_the_content_under_an_older_number_gets_the_newer_one() -> None:
    """Numbers only grow: with the newer one the agent refuses every document that was signed before it."""
    hello = say("hello", 1, appliedGeneration=5, appliedDigest=digest(7))
    conversation = Conversation().happens(want(7)).agent(hello, observed(hello), welcome(1, 7, 7))
    conversation.written(desired(2, 7)).written()


def test_an_agent_is_welcomed_before_anything_is_wanted() -> None:
    """Without a wanted document the welcome says so, and the first one that is published is sent at once."""
    hello = say("hello", 1)
    Conversation().agent(hello, observed(hello), welcome()).written().happens(want(1), desired(2, 1))


def test_an_agent_learns_that_what_it_has_is_wanted() -> None:
    """Where that was not known at the welcome it is sent, once: the agent goes by it for what may be said."""
    hello = say("hello", 1, appliedGeneration=7, appliedDigest=digest(7))
    conversation = Conversation().agent(hello, observed(hello), welcome()).written()
    conversation.happens(want(7), desired(2, 7)).written().happens(want(8, 7)).written()


def test_the_newest_document_replaces_the_one_that_waits() -> None:
    """While something is written at most one document waits, the newest; the ones between are never signed."""

    def never() -> str:
        raise AssertionError("a document that was replaced was signed")

    conversation = started(3).happens(want(4), desired(3, 4))
    conversation.happens(Wanted(5, digest(5), never)).happens(Wanted(6, digest(6), never)).happens(want(7))
    conversation.written(desired(4, 7)).written()


def test_an_older_document_never_replaces_a_newer_one() -> None:
    """What is wanted only ever moves to a newer generation."""
    started(3).happens(want(2)).happens(want(3, "a")).happens(want(4), desired(3, 4)).written().happens(want(1))


def test_a_document_equal_to_the_one_on_its_way_is_not_sent_again() -> None:
    """A change that was taken back while it waited costs no message."""
    conversation = started(3).happens(want(4), desired(3, 4))
    conversation.happens(want(5)).happens(want(6, 4)).written()


def test_a_refused_document_is_sent_again_when_it_is_wanted_again() -> None:
    """A refusal says that the agent does not have the content, so an equal digest is no reason to stay silent."""
    refused = say("report", 2, outcome="refused", reason="Expired")
    started(3).agent(refused, observed(refused)).happens(want(4, 3), desired(3, 4))


def test_a_document_that_cannot_be_signed_is_dropped() -> None:
    """An error of the signer leaves the session able to send the next document."""

    def broken() -> str:
        raise RuntimeError("no key")

    conversation = started(3)
    with pytest.raises(RuntimeError, match="no key"):
        conversation.session.handle(Wanted(4, digest(4), broken))
    conversation.happens(want(5), desired(3, 5))


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("kind", list(MESSAGES))
def test_only_messages_of_the_table_may_come(state: State, kind: str) -> None:
    """In each state the listed messages lead to the listed state, and every other one closes without an effect."""
    conversation = Conversation()
    sequence = 1
    if state is not State.OPENING:
        conversation, sequence = started(), 2
    if state is State.CLOSING:
        conversation.session.handle(Dismissed(CloseCode.REVOKED, "Revoked"))
    message = say(kind, sequence)
    following = NEXT[state].get(kind)
    commands = list(conversation.session.handle(Received(message, START)))
    if following is not None:
        assert following is conversation.session.state
        assert observed(message) == commands[0]
    else:
        assert State.CLOSING is conversation.session.state
        assert commands == ([] if state is State.CLOSING else [Close(CloseCode.PROTOCOL_ERROR, "UnexpectedMessage")])


@pytest.mark.parametrize(
    ("message", "close"),
    [
        (say("hello", 1, protocol=2), Close(4406, "UnsupportedProtocol")),
        (say("hello", 1, agent="vps-2"), Close(4400, "ForeignName")),
        (say("hello", 2), Close(4400, "SequenceBroken")),
        (say("hello", 0), Close(4400, "InvalidMessage")),
        (say("hello", 1, appliedGeneration=10**30), Close(4400, "InvalidMessage")),
        (say("hello", 1, extra=1), Close(4400, "InvalidMessage")),
        (b"\x00", Close(4400, "BinaryMessage")),
        ("", Close(4400, "InvalidMessage")),
        ("[" * 200_000, Close(4400, "InvalidMessage")),
        ('{"type": "welcome", "sequence": 1}', Close(4400, "InvalidMessage")),
        ('{"a": "\\ud800"}', Close(4400, "InvalidMessage")),
        ("\ud800", Close(4400, "InvalidMessage")),
        ("x" * (256 * 1024 + 1), Close(4429, "MessageTooLarge")),
        ("\u20ac" * (100 * 1024), Close(4429, "MessageTooLarge")),
        (b"x" * (256 * 1024 + 1), Close(4429, "MessageTooLarge")),
    ],
)
def test_a_bad_first_message_closes(message: str | bytes, close: Close) -> None:
    """Whatever is wrong with the hello, the session closes with the code that says so and observes nothing."""
    Conversation().agent(message, close).over()


@pytest.mark.parametrize("sequence", [1, 2, 4, 100])
def test_a_broken_sequence_closes_without_effect(sequence: int) -> None:
    """Doubled, replayed and reordered frames end the session before they are looked at."""
    report = say("report", 2)
    conversation = started().agent(report, observed(report))
    conversation.agent(say("report", sequence, outcome="failed"), Close(4400, "SequenceBroken")).over()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"generation": 4, "digest": digest(4)}, "UnknownGeneration"),
        ({"generation": 2, "digest": digest(2)}, "UnknownGeneration"),
        ({"generation": 3, "digest": digest(4)}, "ForeignDigest"),
        ({"generation": 3, "digest": None}, "ForeignDigest"),
        ({"generation": 0, "digest": digest(3), "outcome": "refused"}, "UnknownGeneration"),
    ],
)
def test_reports_of_documents_that_were_not_sent_count_for_nothing(fields: dict[str, Any], reason: str) -> None:
    """A report must name a generation that was sent and its digest, or it changes nothing."""
    report = say("report", 3)
    conversation = started().agent(say("report", 2, **fields), Ignored(reason))
    conversation.agent(report, observed(report))


def test_a_report_older_than_the_newest_accepted_counts_for_nothing() -> None:
    """Once generation 4 was reported on, what comes about 3 is history."""
    conversation = started(3).happens(want(4), desired(3, 4)).written()
    newer, older = say("report", 2, generation=4, digest=digest(4)), say("report", 3)
    conversation.agent(newer, observed(newer)).agent(older, Ignored("OlderGeneration"))


def test_a_document_that_the_agent_could_not_read_is_reported_without_a_generation() -> None:
    """A refusal without generation and digest is heard, for it claims nothing."""
    refused = say("report", 2, generation=0, digest=None, outcome="refused", reason="BadSignature")
    started().agent(refused, observed(refused))


def test_only_the_last_documents_are_remembered() -> None:
    """A long session does not grow: reports on documents sent long ago are unknown."""
    conversation = started(1)
    for generation in range(2, KNOWN_DOCUMENTS + 2):
        conversation.happens(want(generation), desired(generation + 1, generation)).written()
    conversation.agent(say("report", 2, generation=1, digest=digest(1)), Ignored("UnknownGeneration"))


def test_a_silent_agent_is_closed() -> None:
    """Without a hello in time, and later without any message in time, the session closes with 4408."""
    Conversation().happens(Tick(START + 9.9)).happens(Tick(START + 10), Close(4408, "TimedOut")).over()
    beat = say("heartbeat", 2)
    conversation = started().at(60).agent(beat, observed(beat)).happens(Tick(START + 124))
    conversation.happens(Tick(START + 125), Close(4408, "TimedOut")).over()


def test_an_agent_that_talks_too_much_is_closed() -> None:
    """After the burst, messages above the rate close with 4429; a pause fills the bucket again."""
    conversation = started()
    for sequence in range(2, 21):
        conversation.session.handle(Received(say("heartbeat", sequence), START))
    beat = say("heartbeat", 21)
    conversation.at(1).agent(beat, observed(beat)).agent(say("heartbeat", 22), Close(4429, "TooManyMessages")).over()


def test_a_clock_that_steps_back_fills_no_bucket() -> None:
    """Time that runs backwards neither fails nor gives room."""
    beat = say("heartbeat", 2)
    started().at(-50).agent(beat, observed(beat))


def test_a_dismissed_agent_is_told_why() -> None:
    """A goodbye with reason and pause goes before the close, unless something is still being written."""
    goodbye = {
        "type": "goodbye",
        "sequence": 3,
        "reason": "ShuttingDown",
        "message": "",
        "retrySeconds": 2.5,
    }
    event = Dismissed(CloseCode.GOING_AWAY, "ShuttingDown", retry_seconds=2.5)
    close = Close(CloseCode.GOING_AWAY, "ShuttingDown")
    started().happens(event, Send(json.dumps(goodbye, separators=(",", ":"))), close).over()
    started().happens(want(4), desired(3, 4)).happens(event, close).over()


def test_a_lost_connection_ends_without_a_word() -> None:
    """There is nobody left to be told anything, not even what waited."""
    started().happens(want(4), desired(3, 4)).happens(want(5)).happens(Lost()).over()


# --- certificates of services -----------------------------------------------------------------------------------------


def request(sequence: int, name: str = "web") -> str:
    return say("certificate-request", sequence, id=f"Certificate/shop/{name}")


def asked(text: str) -> Asked:
    return Asked(FROM_AGENT.validate_json(text))  # type: ignore[arg-type]


def answered(sequence: int, name: str = "web", **fields: Any) -> Send:
    answer = CertificateAnswer(sequence=sequence, id=f"Certificate/shop/{name}", **fields)
    return Send(answer.model_dump_json(by_alias=True))


def test_a_request_is_answered_once() -> None:
    """It is handed out, and its answer goes back under its id."""
    conversation = started().agent(request(2), asked(request(2)))
    conversation.happens(
        Answered("Certificate/shop/web", "leaf", "roots"), answered(3, certificate="leaf", bundle="roots")
    )
    conversation.written().agent(request(3), asked(request(3)))


def test_a_second_request_for_an_item_counts_for_nothing_while_the_first_is_under_way() -> None:
    """One signature an item at a time, however often somebody asks."""
    started().agent(request(2), asked(request(2))).agent(request(3), Ignored("AlreadyAsked"))


def test_more_requests_than_an_agent_may_have_under_way_end_the_session() -> None:
    """Nobody makes the control plane sign without end."""
    conversation = started()
    for number in range(LIMITS.max_asked):
        text = request(2 + number, f"s{number}")
        conversation.agent(text, asked(text))
    conversation.agent(request(2 + LIMITS.max_asked, "last"), Close(CloseCode.TOO_MUCH, "TooManyRequests")).over()


def test_answers_wait_for_room_and_go_before_a_document() -> None:
    """While something is written nothing else is, and a certificate for the present document comes before the next."""
    conversation = started().agent(request(2), asked(request(2))).agent(request(3, "api"), asked(request(3, "api")))
    conversation.happens(want(4), desired(3, 4)).happens(want(5)).happens(Answered("Certificate/shop/api", reason="No"))
    conversation.happens(Answered("Certificate/shop/web", reason="No"))
    conversation.written(answered(4, "api", reason="No")).written(answered(5, reason="No")).written(
        desired(6, 5)
    ).written()


def test_a_request_before_hello_ends_the_session() -> None:
    """Who has not said hello asks for nothing."""
    Conversation().agent(request(1), Close(CloseCode.PROTOCOL_ERROR, "UnexpectedMessage")).over()


def test_an_answer_after_the_end_goes_nowhere() -> None:
    """A certificate that was signed while the agent was dismissed is not handed out."""
    conversation = started().agent(request(2), asked(request(2)))
    conversation.session.handle(Dismissed(CloseCode.REVOKED, "Revoked"))
    conversation.happens(Answered("Certificate/shop/web", "leaf", "roots"))
