"""The agent's side of the conversation with the control plane: events in, commands out, nothing opened.

The way of a session: ``Hello`` with what is applied → ``Welcome`` → each ``Desired`` is handed out to be taken, and
what became of it comes back as an :class:`Outcome` and leaves as a ``Report``; a ``Heartbeat`` at the interval that the
welcome told. An :class:`Ask` leaves as a request for a certificate once the control plane is known to want the document
that names it, and comes back as :class:`Certified`. What the control plane sends out of sequence ends the session and
changes nothing.

Words:
  opening   hello was said, no welcome yet
  active    documents may come
  closing   a close or a goodbye was said; whatever still comes in changes nothing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, NamedTuple

from pydantic import ValidationError

from tests.support.former.messages import (
    FROM_CONTROL_PLANE,
    MAX_AGENT_MESSAGE,
    MAX_DOCUMENT,
    PROTOCOL,
    CertificateAnswer,
    CertificateRequest,
    CloseCode,
    Desired,
    Goodbye,
    Heartbeat,
    Hello,
    ItemResult,
    OfControlPlane,
    Report,
    Welcome,
)


class State(Enum):
    OPENING = "opening"
    ACTIVE = "active"
    CLOSING = "closing"


NEXT: Final[Mapping[State, Mapping[str, State]]] = {
    State.OPENING: {"welcome": State.ACTIVE, "goodbye": State.CLOSING},
    State.ACTIVE: {"desired": State.ACTIVE, "certificate": State.ACTIVE, "goodbye": State.CLOSING},
    State.CLOSING: {},
}
"""State → type of message that may come → state after it. What is not listed is a protocol error."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    welcome_seconds: float = 15.0
    max_message: int = MAX_DOCUMENT
    max_asked: int = 4
    """Requests for certificates under way at once; the others wait here."""


# Events: what happened.


class Opened(NamedTuple):
    """The connection stands. ``now`` is monotonic, in seconds, here and below."""

    now: float


class Received(NamedTuple):
    data: str | bytes
    now: float


class Tick(NamedTuple):
    """Time has passed; needed once :attr:`AgentSession.deadline` is over. ``metrics`` go with the heartbeat."""

    now: float
    metrics: Mapping[str, float] = {}


class Outcome(NamedTuple):
    """What became of a document. Generation 0 and no digest: it could not be told which one it was."""

    generation: int
    digest: str | None
    outcome: Literal["applied", "progressing", "failed", "refused"]
    reason: str = ""
    message: str = ""
    items: tuple[ItemResult, ...] = ()


class Ask(NamedTuple):
    """A certificate is wanted for the item ``id``; a newer request replaces one that was not sent yet."""

    id: str
    digest: str
    csr: str


Event = Opened | Received | Tick | Outcome | Ask


# Commands: what to do.


class Send(NamedTuple):
    text: str


class Close(NamedTuple):
    code: int
    reason: str


class Take(NamedTuple):
    """A document came, unverified. Its outcome is an event, whenever it is known."""

    jws: str


class Retreat(NamedTuple):
    """The control plane is about to close; come back after ``seconds`` and not before."""

    seconds: float
    reason: str
    message: str


class Certified(NamedTuple):
    """What became of an :class:`Ask`."""

    answer: CertificateAnswer


Command = Send | Close | Take | Retreat | Certified
NOTHING: Final[tuple[Command, ...]] = ()


class AgentSession:
    """The state of one connection. ``applied`` is generation and digest of what the agent has."""

    def __init__(
        self, name: str, version: str, applied: tuple[int, str | None], limits: SessionLimits | None = None
    ) -> None:
        self.state = State.OPENING
        self.deadline = 0.0
        """When the next :class:`Tick` is due."""
        self.welcome: Welcome | None = None
        self._name = name
        self._version = version
        self._applied = applied
        self._limits = limits or SessionLimits()
        self._sequence_in = 0
        self._sequence_out = 0
        self._desired = False
        """A document came in this session."""
        self._offered = False
        """The control plane at the other end wants the document that this agent has."""
        self._waiting: dict[str, Ask] = {}
        self._asked: set[str] = set()

    def handle(self, event: Event) -> Sequence[Command]:
        """Take in one event; raises nothing."""
        if self.state is State.CLOSING:
            return NOTHING
        match event:
            case Opened(now):
                return self._hello(now)
            case Received(data, now):
                return self._receive(data, now)
            case Tick():
                return self._tick(event) if event.now >= self.deadline else NOTHING
            case Outcome():
                return self._report(event)
            case Ask():
                self._waiting[event.id] = event
                return self._ask()

    def _hello(self, now: float) -> Sequence[Command]:
        self.deadline = now + self._limits.welcome_seconds
        generation, digest = self._applied
        hello = Hello(
            sequence=self._next(),
            protocol=PROTOCOL,
            agent=self._name,
            version=self._version,
            applied_generation=generation,
            applied_digest=digest,
        )
        return (Send(hello.model_dump_json(by_alias=True)),)

    def _tick(self, event: Tick) -> Sequence[Command]:
        if self.welcome is None:
            return self._close(CloseCode.TIMED_OUT, "TimedOut")
        self.deadline = event.now + self.welcome.heartbeat_seconds
        beat = Heartbeat(sequence=self._next(), applied_generation=self._applied[0], metrics=dict(event.metrics))
        return (Send(beat.model_dump_json(by_alias=True)),)

    def _report(self, outcome: Outcome) -> Sequence[Command]:
        if outcome.outcome == "applied":
            self._applied = outcome.generation, outcome.digest
        report = Send(_report_text(self._next(), outcome))
        self._offered = self._offered or (self._desired and outcome.outcome != "refused")
        return (report, *self._ask())

    def _receive(self, data: str | bytes, now: float) -> Sequence[Command]:
        message = self._read(data)
        if isinstance(message, Close):
            return self._close(message.code, message.reason)
        self._sequence_in = message.sequence
        self.state = NEXT[self.state][message.type]
        match message:
            case Welcome():
                self.welcome = message
                self.deadline = now + message.heartbeat_seconds
                self._offered = message.wanted_digest is not None and message.wanted_digest == self._applied[1]
                return self._ask()
            case Desired():
                self._desired = True
                return (Take(message.jws),)
            case CertificateAnswer():
                self._asked.discard(message.id)
                return (Certified(message), *self._ask())
            case Goodbye():
                return (Retreat(message.retry_seconds, message.reason, message.message),)

    def _ask(self) -> Sequence[Command]:
        """Send what may be sent. An older control plane would end the session over it, see :mod:`schemas.session`."""
        ready = [one for one in self._waiting if one not in self._asked] if self._offered else []
        sent: list[Command] = []
        for item in ready[: max(0, self._limits.max_asked - len(self._asked))]:
            ask = self._waiting.pop(item)
            self._asked.add(item)
            request = CertificateRequest(sequence=self._next(), id=ask.id, digest=ask.digest, csr=ask.csr)
            sent.append(Send(request.model_dump_json(by_alias=True)))
        return sent

    def _read(self, data: str | bytes) -> OfControlPlane | Close:
        """Return the message if it may come now, else why the session ends."""
        if len(data) > self._limits.max_message:
            return Close(CloseCode.TOO_MUCH, "MessageTooLarge")
        if isinstance(data, bytes):
            return Close(CloseCode.PROTOCOL_ERROR, "BinaryMessage")
        try:
            message = FROM_CONTROL_PLANE.validate_json(data)
        except ValidationError:
            return Close(CloseCode.PROTOCOL_ERROR, "InvalidMessage")
        if message.sequence != self._sequence_in + 1:
            return Close(CloseCode.PROTOCOL_ERROR, "SequenceBroken")
        if message.type not in NEXT[self.state]:
            return Close(CloseCode.PROTOCOL_ERROR, "UnexpectedMessage")
        if isinstance(message, CertificateAnswer) and message.id not in self._asked:
            return Close(CloseCode.PROTOCOL_ERROR, "UnexpectedMessage")
        if isinstance(message, Welcome) and message.protocol != PROTOCOL:
            return Close(CloseCode.UNSUPPORTED, "UnsupportedProtocol")
        return message

    def _next(self) -> int:
        self._sequence_out += 1
        return self._sequence_out

    def _close(self, code: int, reason: str) -> Sequence[Command]:
        self.state = State.CLOSING
        return (Close(code, reason),)


_TEXT: Final = 2048
_SHORT: Final = 80


def _report_text(sequence: int, outcome: Outcome) -> str:
    """Write a report that fits into a message: in full, else only what is not applied, shortened, else no items."""
    text = ""
    for items in (outcome.items, _what_matters(outcome.items), ()):
        report = Report(
            sequence=sequence,
            generation=outcome.generation,
            digest=outcome.digest,
            outcome=outcome.outcome,
            reason=outcome.reason[:64],
            message=outcome.message[:_TEXT],
            items=items,
        )
        text = report.model_dump_json(by_alias=True)
        if len(text.encode()) <= MAX_AGENT_MESSAGE:
            break
    return text


def _what_matters(items: tuple[ItemResult, ...]) -> tuple[ItemResult, ...]:
    failed = [item for item in items if item.state != "Applied"]
    return tuple(item.model_copy(update={"message": item.message[:_SHORT]}) for item in failed[:500])
