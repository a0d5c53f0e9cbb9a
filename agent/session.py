"""The agent's side of the conversation with the control plane: events in, commands out, nothing opened.

The way of a session: ``Hello`` with what is applied → ``Welcome`` → each ``Desired`` is handed out to be taken, and
what became of it comes back as an :class:`Outcome` and leaves as a ``Report``; a ``Heartbeat`` at the interval that the
welcome told. An :class:`Ask` leaves as a request for a certificate once the control plane is known to want the document
that names it, and comes back as :class:`Certified`. What else may be said depends on the features that the document
offers (:mod:`agent.talk`). Everything but hello and heartbeats keeps to a pace that the control plane allows; of what
waits for it the newest leaves. What the control plane sends out of sequence ends the session and changes nothing.

Words:
  opening   hello was said, no welcome yet
  active    documents may come
  closing   a close or a goodbye was said; whatever still comes in changes nothing
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from pydantic import ValidationError

from agent.reporting import Outcome, report_text
from agent.talk import Pace, Requests, Say, Seen, Talk, TalkLimits
from schemas.session import (
    FROM_CONTROL_PLANE,
    MAX_DOCUMENT,
    PROTOCOL,
    CertificateAnswer,
    CertificateRequest,
    CloseCode,
    Desired,
    Goodbye,
    Heartbeat,
    Hello,
    ObservationPublished,
    OfControlPlane,
    SecretsAnswer,
    Welcome,
)
from schemas.session import Command as CommandMessage
from schemas.session import CommandStop as CommandStopMessage


class State(Enum):
    OPENING = "opening"
    ACTIVE = "active"
    CLOSING = "closing"


NEXT: Final[Mapping[State, Mapping[str, State]]] = {
    State.OPENING: {"welcome": State.ACTIVE, "goodbye": State.CLOSING},
    State.ACTIVE: {
        "desired": State.ACTIVE,
        "certificate": State.ACTIVE,
        "observation-published": State.ACTIVE,
        "secrets": State.ACTIVE,
        "command": State.ACTIVE,
        "command-stop": State.ACTIVE,
        "goodbye": State.CLOSING,
    },
    State.CLOSING: {},
}
"""State → type of message that may come → state after it. What is not listed is a protocol error, and so is what needs
a feature that this side did not say."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    welcome_seconds: float = 15.0
    max_message: int = MAX_DOCUMENT
    max_asked: int = 4
    """Requests for certificates under way at once; the others wait here."""
    talk: TalkLimits = field(default_factory=TalkLimits)


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


class Ask(NamedTuple):
    """A certificate is wanted for the item ``id``; a newer request replaces one that was not sent yet."""

    id: str
    digest: str
    csr: str


class Held(NamedTuple):
    """A document of this agent, and the features that it offers."""

    digest: str
    offers: tuple[str, ...] = ()


class Offered(NamedTuple):
    """The document that came in this session was genuine and is not older than what is held; it offers this."""

    features: tuple[str, ...]


class Written(NamedTuple):
    """The connection took one :class:`Send`."""


Event = Opened | Received | Tick | Outcome | Ask | Offered | Seen | Say | Written


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


class Agreed(NamedTuple):
    """From now on these features may be used, until the session is over. Happens once."""

    features: frozenset[str]


class Published(NamedTuple):
    """Every front serves what the :class:`agent.talk.Seen` with this token said."""

    token: object


class Heard(NamedTuple):
    """The control plane said something that a feature is there for."""

    message: SecretsAnswer | CommandMessage | CommandStopMessage


Command = Send | Close | Take | Retreat | Certified | Agreed | Published | Heard
NOTHING: Final[tuple[Command, ...]] = ()


class AgentSession:
    """The state of one connection. ``applied`` is generation and digest of what the agent has applied, ``held`` the
    document that it has, ``knows`` the features for which it has somebody.
    """

    def __init__(
        self,
        name: str,
        version: str,
        applied: tuple[int, str | None],
        limits: SessionLimits | None = None,
        *,
        held: Held | None = None,
        knows: Collection[str] = (),
    ) -> None:
        self.state = State.OPENING
        self.deadline = 0.0
        """When the next :class:`Tick` is due."""
        self.welcome: Welcome | None = None
        self._name = name
        self._version = version
        self._applied = applied
        self._limits = limits or SessionLimits()
        self._held = held
        self._talk = Talk(knows, self._limits.talk)
        self._pace = Pace(self._limits.talk.per_second, self._limits.talk.burst)
        self._now = 0.0
        """The latest that is known; an event without a time may have happened later."""
        self._beat_at = 0.0
        """When the next heartbeat is due; before the welcome, when it is too late for one."""
        self._unwritten = 0
        self._outcomes: dict[tuple[int, str | None], Outcome] = {}
        """Unsaid, by document."""
        self._sequence_in = 0
        self._sequence_out = 0
        self._desired = False
        """A document came in this session."""
        self._offered = False
        """The control plane at the other end wants the document that this agent has."""
        self._asks: Requests[Ask] = Requests(self._limits.max_asked)

    def handle(self, event: Event) -> Sequence[Command]:
        """Take in one event; raises nothing."""
        if self.state is State.CLOSING:
            return NOTHING
        if isinstance(event, Opened | Received | Tick):
            self._now = max(self._now, event.now)
        return (*self._take_in(event), *self._flush())

    def waiting(self, command: str) -> int:
        """Return how many characters of a command's output wait, for whoever can slow it down."""
        return self._talk.waiting(command)

    def _take_in(self, event: Event) -> Sequence[Command]:
        match event:
            case Opened(now):
                return self._hello(now)
            case Received(data, now):
                return self._receive(data, now)
            case Tick():
                return self._tick(event) if event.now >= self._beat_at else NOTHING
            case Outcome():
                self._note(event)
            case Ask():
                self._asks.want(event.id, event)
            case Offered(features):
                return self._offer(features)
            case Seen():
                self._talk.seen(event)
            case Say(message):
                self._talk.say(message)
            case Written():
                self._unwritten = max(0, self._unwritten - 1)
        return NOTHING

    def _hello(self, now: float) -> Sequence[Command]:
        self._beat_at = now + self._limits.welcome_seconds
        generation, digest = self._applied
        hello = Hello(
            sequence=self._next(),
            protocol=PROTOCOL,
            agent=self._name,
            version=self._version,
            applied_generation=generation,
            applied_digest=digest,
        )
        return (self._send(hello.model_dump_json(by_alias=True)),)

    def _tick(self, event: Tick) -> Sequence[Command]:
        if self.welcome is None:
            return self._close(CloseCode.TIMED_OUT, "TimedOut")
        self._beat_at = event.now + self.welcome.heartbeat_seconds
        beat = Heartbeat(sequence=self._next(), applied_generation=self._applied[0], metrics=dict(event.metrics))
        return (self._send(beat.model_dump_json(by_alias=True)),)

    def _note(self, outcome: Outcome) -> None:
        """Remember what became of a document until it is said; of one document the newest counts."""
        if outcome.outcome == "applied":
            self._applied = outcome.generation, outcome.digest
        key = outcome.generation, outcome.digest
        self._outcomes.pop(key, None)
        self._outcomes[key] = outcome
        self._offered = self._offered or (self._desired and outcome.outcome != "refused")

    def _offer(self, features: Collection[str]) -> Sequence[Command]:
        return (Agreed(self._talk.features),) if self._talk.offered(features) else NOTHING

    def _receive(self, data: str | bytes, now: float) -> Sequence[Command]:
        message = self._read(data)
        if isinstance(message, Close):
            return self._close(message.code, message.reason)
        self._sequence_in = message.sequence
        self.state = NEXT[self.state][message.type]
        match message:
            case Welcome():
                return self._begin(message, now)
            case Desired():
                self._desired = True
                return (Take(message.jws),)
            case CertificateAnswer():
                self._asks.answered(message.id)
                return (Certified(message),)
            case ObservationPublished():
                return tuple(Published(token) for token in self._talk.published(message.number))
            case CommandStopMessage():
                self._talk.stopped(message.id)
                return (Heard(message),)
            case SecretsAnswer():
                self._talk.secrets.answered(message.id)
                return (Heard(message),)
            case CommandMessage():
                return (Heard(message),)
            case Goodbye():
                return (Retreat(message.retry_seconds, message.reason, message.message),)

    def _begin(self, welcome: Welcome, now: float) -> Sequence[Command]:
        self.welcome = welcome
        self._beat_at = now + welcome.heartbeat_seconds
        self._offered = welcome.wanted_digest is not None and welcome.wanted_digest == self._applied[1]
        if self._held is not None and welcome.wanted_digest == self._held.digest:
            return self._offer(self._held.offers)
        return NOTHING

    # --- what leaves ----------------------------------------------------------------------------------------------

    def _flush(self) -> Sequence[Command]:
        """Say what may be said now, and set the deadline by what has to wait."""
        sent: list[Command] = []
        if self.state is State.CLOSING:
            return sent
        while self._sequence_out and self._pace.ready_at(self._now) <= self._now:
            if (text := self._next_text()) is None:
                break
            self._pace.take()
            sent.append(self._send(text))
        self.deadline = self._beat_at
        now, asks = self._now, self._offered and self._asks.ready
        due = now if self._outcomes or asks else self._talk.due(now, self._unwritten)
        if due is not None and self._sequence_out:
            self.deadline = min(self.deadline, max(due, self._pace.ready_at(now)))
        return sent

    def _next_text(self) -> str | None:
        """Write what is most important of what waits. An older control plane would end the session over a request
        that it did not offer to answer, see :mod:`schemas.session`.
        """
        if self._outcomes:
            outcome = self._outcomes.pop(next(iter(self._outcomes)))
            return report_text(self._next(), outcome)
        if self._offered and (ask := self._asks.next()) is not None:
            request = CertificateRequest(sequence=self._next(), id=ask.id, digest=ask.digest, csr=ask.csr)
            return request.model_dump_json(by_alias=True)
        if (said := self._talk.next(self._now, self._unwritten)) is not None:
            return said.model_copy(update={"sequence": self._next()}).model_dump_json(by_alias=True)
        return None

    def _send(self, text: str) -> Send:
        self._unwritten += 1
        return Send(text)

    # --- what comes -----------------------------------------------------------------------------------------------

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
        if message.type not in NEXT[self.state] or not self._is_expected(message):
            return Close(CloseCode.PROTOCOL_ERROR, "UnexpectedMessage")
        if isinstance(message, Welcome) and message.protocol != PROTOCOL:
            return Close(CloseCode.UNSUPPORTED, "UnsupportedProtocol")
        return message

    def _is_expected(self, message: OfControlPlane) -> bool:
        match message:
            case CertificateAnswer():
                return message.id in self._asks.under_way
            case SecretsAnswer():
                return message.id in self._talk.secrets.under_way
            case ObservationPublished():
                return self._talk.was_sent(message.number)
            case _:
                return self._talk.may_come(message.type)

    def _next(self) -> int:
        self._sequence_out += 1
        return self._sequence_out

    def _close(self, code: int, reason: str) -> Sequence[Command]:
        self.state = State.CLOSING
        return (Close(code, reason),)
