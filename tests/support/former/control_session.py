"""One agent's conversation as the control plane sees it: events in, commands out, nothing opened.

The way of a session: the agent's ``Hello`` must come first and in time → ``Welcome`` → ``Desired``, where what the
agent applied is not what is wanted → ``Report`` and ``Heartbeat`` from then on. Whoever drives the session carries out
its commands in their order and says :data:`WRITE_FINISHED` after each :class:`Send`.

Words:
  opening   no hello yet
  active    hello was good; reports and heartbeats count
  closing   a close was asked for; whatever still comes in changes nothing
  wanted    the newest document that was offered; an older one never takes its place
  unsent    the one document that waits while something is being written; a newer one replaces it
  known     documents that this agent can rightly report on: what was sent here, and what its hello proved equal

  asked     requests for certificates that are being answered; one for an item at most

A frame that is doubled, lost or out of order breaks the sequence and ends the session without another effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from pydantic import ValidationError

from tests.support.former.messages import (
    FROM_AGENT,
    MAX_AGENT_MESSAGE,
    PROTOCOL,
    CertificateAnswer,
    CertificateRequest,
    CloseCode,
    Goodbye,
    Heartbeat,
    Hello,
    OfAgent,
    Report,
    Welcome,
)

KNOWN_DOCUMENTS: Final = 16
"""Sent documents that are remembered; an agent that reports on an older one is too late to matter."""


class State(Enum):
    OPENING = "opening"
    ACTIVE = "active"
    CLOSING = "closing"


NEXT: Final[Mapping[State, Mapping[str, State]]] = {
    State.OPENING: {"hello": State.ACTIVE},
    State.ACTIVE: {"report": State.ACTIVE, "heartbeat": State.ACTIVE, "certificate-request": State.ACTIVE},
    State.CLOSING: {},
}
"""State → type of message that may come → state after it. What is not listed is a protocol error, which leads to
closing, as do time-outs, limits and a dismissal."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Times are in seconds."""

    hello_seconds: float = 10.0
    heartbeat_seconds: float = 20.0
    """What the agent is told."""
    silence_seconds: float = 65.0
    """Longest pause between two messages of the agent: three heartbeats and some delay."""
    messages_per_second: float = 10.0
    burst: int = 100
    max_message: int = MAX_AGENT_MESSAGE
    max_asked: int = 8
    """Requests for certificates that may be under way at once; an agent keeps to fewer."""


# Events: what happened.


class Received(NamedTuple):
    """A whole message; binary ones are refused. ``now`` is monotonic, in seconds, here and below."""

    data: str | bytes
    now: float


class Wanted(NamedTuple):
    """A document that the agent should have. ``jws`` is called at most once, and only if it is really sent."""

    generation: int
    digest: str
    jws: Callable[[], str]


class Tick(NamedTuple):
    """Time has passed; needed only once :attr:`AgentSession.deadline` is over."""

    now: float


class WriteFinished(NamedTuple):
    """The transport took the last message; there is room for the next."""


class Dismissed(NamedTuple):
    """The control plane ends the session of its own accord."""

    code: int
    reason: str
    message: str = ""
    retry_seconds: float = 0.0


class Answered(NamedTuple):
    """What became of a request for a certificate; fields as in :class:`schemas.session.CertificateAnswer`."""

    id: str
    certificate: str = ""
    bundle: str = ""
    reason: str = ""
    message: str = ""
    retry_seconds: float = 0.0


class Lost(NamedTuple):
    """The connection is gone; there is nobody left to say anything to."""


Event = Received | Wanted | Tick | WriteFinished | Dismissed | Answered | Lost
WRITE_FINISHED: Final = WriteFinished()


# Commands: what to do.


class Send(NamedTuple):
    text: str


class Close(NamedTuple):
    """``reason`` is a CamelCase word; nothing is sent after it."""

    code: int
    reason: str


class Observed(NamedTuple):
    """The agent said something that counts."""

    message: Hello | Report | Heartbeat


class Asked(NamedTuple):
    """The agent wants a certificate; :class:`Answered` has to follow."""

    request: CertificateRequest


class Ignored(NamedTuple):
    """The agent said something that is well-formed and counts for nothing."""

    reason: str


Command = Send | Close | Observed | Asked | Ignored
NOTHING: Final[tuple[Command, ...]] = ()


class AgentSession:
    """The state of one connection. ``name`` is the authenticated identity."""

    __slots__ = (
        "_answers",
        "_asked",
        "_held",
        "_known",
        "_limits",
        "_name",
        "_refilled",
        "_reported",
        "_room",
        "_sequence_in",
        "_sequence_out",
        "_unsent",
        "_wanted",
        "_writing",
        "deadline",
        "state",
    )

    def __init__(self, name: str, limits: SessionLimits, now: float) -> None:
        self.state = State.OPENING
        self.deadline = now + limits.hello_seconds
        """When a :class:`Tick` will close the session, if nothing comes before."""
        self._name = name
        self._limits = limits
        self._room = float(limits.burst)
        self._refilled = now
        self._sequence_in = 0
        self._sequence_out = 0
        self._writing = False
        self._wanted: Wanted | None = None
        self._unsent: Wanted | None = None
        self._held: str | None = None
        """Digest of what the agent has, or will have once it took what was sent; None where unknown."""
        self._asked: set[str] = set()
        self._answers: list[Answered] = []
        """Wait for room; no more than were asked."""
        self._known: dict[int, str] = {}
        self._reported = 0
        """Newest generation that a report was accepted for."""

    def handle(self, event: Event) -> Sequence[Command]:
        """Take in one event. Raises only what the ``jws`` of a wanted document raises, which is then dropped."""
        if self.state is State.CLOSING:
            return NOTHING
        match event:
            case Wanted():
                return self._want(event)
            case WriteFinished():
                self._writing = False
                return self._flush()
            case Received(data, now):
                return self._receive(data, now)
            case Tick(now):
                return self._close(CloseCode.TIMED_OUT, "TimedOut") if now >= self.deadline else NOTHING
            case Dismissed():
                return self._dismiss(event)
            case Answered():
                self._answers.append(event)
                return self._flush()
            case Lost():
                self.state = State.CLOSING
                return NOTHING

    # What the control plane wants.

    def _want(self, offer: Wanted) -> Sequence[Command]:
        if self._wanted is not None and offer.generation <= self._wanted.generation:
            return NOTHING
        self._wanted = offer
        if self.state is not State.ACTIVE:
            return NOTHING
        self._unsent = None if offer.digest == self._held else offer
        return self._flush()

    def _flush(self) -> Sequence[Command]:
        offer = self._unsent
        if self._writing:
            return NOTHING
        if self._answers:
            return self._answer(self._answers.pop(0))
        if offer is None:
            return NOTHING
        self._unsent = None
        jws = offer.jws()
        self._held = offer.digest
        self._know(offer.generation, offer.digest)
        # A compact JWS has only base64url and dots (RFC 7515), so it needs no escaping in JSON.
        return (self._send(f'{{"type":"desired","sequence":{self._sequence_out + 1},"jws":"{jws}"}}'),)

    def _answer(self, answered: Answered) -> Sequence[Command]:
        self._asked.discard(answered.id)
        answer = CertificateAnswer(sequence=self._sequence_out + 1, **answered._asdict())
        return (self._send(answer.model_dump_json(by_alias=True)),)

    def _dismiss(self, event: Dismissed) -> Sequence[Command]:
        closing = self._close(event.code, event.reason)
        if self._writing:
            return closing
        goodbye = Goodbye(
            sequence=self._sequence_out + 1,
            reason=event.reason,
            message=event.message,
            retry_seconds=event.retry_seconds,
        )
        return (self._send(goodbye.model_dump_json(by_alias=True)), *closing)

    # What the agent says.

    def _receive(self, data: str | bytes, now: float) -> Sequence[Command]:
        message = self._read(data, now)
        if isinstance(message, Close):
            return self._close(message.code, message.reason)
        self._sequence_in = message.sequence
        self.state = NEXT[self.state][message.type]
        self.deadline = now + self._limits.silence_seconds
        match message:
            case Hello():
                return self._welcome(message)
            case Report():
                return self._report(message)
            case Heartbeat():
                return (Observed(message),)
            case CertificateRequest():
                return self._ask(message)

    def _read(self, data: str | bytes, now: float) -> OfAgent | Close:
        """Return the message if it may come now, else why the session ends."""
        if not self._has_room(now):
            return Close(CloseCode.TOO_MUCH, "TooManyMessages")
        # Four bytes are the most that a character takes, so most messages need no encoding to be measured.
        if len(data) * 4 > self._limits.max_message and _size(data) > self._limits.max_message:
            return Close(CloseCode.TOO_MUCH, "MessageTooLarge")
        if isinstance(data, bytes):
            return Close(CloseCode.PROTOCOL_ERROR, "BinaryMessage")
        try:
            message = FROM_AGENT.validate_json(data)
        except ValidationError:
            return Close(CloseCode.PROTOCOL_ERROR, "InvalidMessage")
        if message.sequence != self._sequence_in + 1:
            return Close(CloseCode.PROTOCOL_ERROR, "SequenceBroken")
        if message.type not in NEXT[self.state]:
            return Close(CloseCode.PROTOCOL_ERROR, "UnexpectedMessage")
        if isinstance(message, Hello) and message.protocol != PROTOCOL:
            return Close(CloseCode.UNSUPPORTED, "UnsupportedProtocol")
        if isinstance(message, Hello) and message.agent != self._name:
            return Close(CloseCode.PROTOCOL_ERROR, "ForeignName")
        return message

    def _has_room(self, now: float) -> bool:
        """Take one token out of the bucket, unless it is empty."""
        refill = max(0.0, now - self._refilled) * self._limits.messages_per_second
        self._room = min(float(self._limits.burst), self._room + refill)
        self._refilled = now
        if self._room < 1:
            return False
        self._room -= 1
        return True

    def _welcome(self, hello: Hello) -> Sequence[Command]:
        wanted = self._wanted
        self._held = hello.applied_digest
        if wanted is not None:
            if wanted.digest == hello.applied_digest:
                self._know(hello.applied_generation, wanted.digest)
                self._know(wanted.generation, wanted.digest)
            if wanted.digest != hello.applied_digest or wanted.generation > hello.applied_generation:
                self._unsent = wanted  # the same content too: under its number nothing older can come back
        welcome = Welcome(
            sequence=self._sequence_out + 1,
            protocol=PROTOCOL,
            heartbeat_seconds=self._limits.heartbeat_seconds,
            wanted_generation=wanted.generation if wanted is not None else 0,
            wanted_digest=wanted.digest if wanted is not None else None,
        )
        return Observed(hello), self._send(welcome.model_dump_json(by_alias=True))

    def _report(self, report: Report) -> Sequence[Command]:
        if report.outcome == "refused" and report.generation == 0 and report.digest is None:
            # The agent could not even tell which document it refused; it says nothing about what is applied.
            return (Observed(report),)
        digest = self._known.get(report.generation)
        if digest is None:
            return (Ignored("UnknownGeneration"),)
        if report.generation < self._reported:
            return (Ignored("OlderGeneration"),)
        if report.digest != digest:
            return (Ignored("ForeignDigest"),)
        self._reported = report.generation
        if report.outcome == "refused" and digest == self._held:
            self._held = None
        return (Observed(report),)

    def _ask(self, request: CertificateRequest) -> Sequence[Command]:
        if request.id in self._asked:
            return (Ignored("AlreadyAsked"),)
        if len(self._asked) >= self._limits.max_asked:
            return self._close(CloseCode.TOO_MUCH, "TooManyRequests")
        self._asked.add(request.id)
        return (Asked(request),)

    # Small steps.

    def _know(self, generation: int, digest: str) -> None:
        self._known[generation] = digest
        if len(self._known) > KNOWN_DOCUMENTS:
            del self._known[next(iter(self._known))]

    def _send(self, text: str) -> Send:
        self._sequence_out += 1
        self._writing = True
        return Send(text)

    def _close(self, code: int, reason: str) -> Sequence[Command]:
        self.state = State.CLOSING
        self._unsent = None
        return (Close(code, reason),)


def _size(data: str | bytes) -> int:
    return len(data.encode("utf-8", "surrogatepass")) if isinstance(data, str) else len(data)
