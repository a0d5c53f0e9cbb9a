"""One agent's conversation as the control plane sees it: events in, commands out, nothing opened.

The way of a session: the agent's ``Hello`` must come first and in time → ``Welcome`` → ``Desired``, where what the
agent applied is not what is wanted → ``Report`` and ``Heartbeat`` from then on. Whoever drives the session carries out
its commands in their order and says :data:`WRITE_FINISHED` after each :class:`Send`.

Words:
  opening   no hello yet
  active    hello was good; reports and heartbeats count
  closing   a close was asked for; whatever still comes in changes nothing
  asked     requests for certificates that are being answered; one for an item at most

Documents are in :mod:`reconciler.agents.delivery`, what features bring is in :mod:`reconciler.agents.extensions`.
A frame that is doubled, lost or out of order breaks the sequence and ends the session without another effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from pydantic import ValidationError

from reconciler.agents.delivery import Delivery, Wanted
from reconciler.agents.extensions import Extensions, SecretsAnswered, SecretsAsked, Tell, UnnumberedMessage
from reconciler.agents.rates import Bucket
from schemas.session import (
    FROM_AGENT,
    MAX_AGENT_MESSAGE,
    NEEDS,
    PROTOCOL,
    CertificateAnswer,
    CertificateRequest,
    CloseCode,
    CommandOutput,
    Features,
    Goodbye,
    Heartbeat,
    Hello,
    Observation,
    OfAgent,
    Report,
    SecretsRequest,
    Usage,
    Welcome,
)


class State(Enum):
    OPENING = "opening"
    ACTIVE = "active"
    CLOSING = "closing"


SAID: Final = (
    *("report", "heartbeat", "certificate-request", "features"),
    *("observation", "usage", "secrets-request", "command-output"),
)
"""What an active agent says; the second line with features."""
NEXT: Final[Mapping[State, Mapping[str, State]]] = {
    State.OPENING: {"hello": State.ACTIVE},
    State.ACTIVE: dict.fromkeys(SAID, State.ACTIVE),
    State.CLOSING: {},
}
"""State → type of message that may come → state after it. What is not listed is a protocol error, which leads to
closing, as do time-outs, limits, a dismissal, and a message of a feature that the agent did not say."""


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
    """Requests for certificates, and for secrets, that may be under way at once; an agent keeps to fewer."""


# Events: what happened.


class Received(NamedTuple):
    """A whole message; binary ones are refused. ``now`` is monotonic, in seconds, here and below."""

    data: str | bytes
    now: float


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


Event = Received | Wanted | Tick | WriteFinished | Dismissed | Answered | SecretsAnswered | Tell | Lost
WRITE_FINISHED: Final = WriteFinished()


# Commands: what to do.


class Send(NamedTuple):
    text: str


class Close(NamedTuple):
    """``reason`` is a CamelCase word; nothing is sent after it."""

    code: int
    reason: str


Heard = Hello | Report | Heartbeat | Features | Observation | Usage | CommandOutput


class Observed(NamedTuple):
    """The agent said something that counts."""

    message: Heard


class Asked(NamedTuple):
    """The agent wants a certificate; :class:`Answered` has to follow."""

    request: CertificateRequest


class Ignored(NamedTuple):
    """The agent said something that is well-formed and counts for nothing."""

    reason: str


Command = Send | Close | Observed | Asked | SecretsAsked | Ignored
NOTHING: Final[tuple[Command, ...]] = ()


class AgentSession:
    """The state of one connection. ``name`` is the authenticated identity."""

    __slots__ = (
        "_answers",
        "_asked",
        "_bucket",
        "_documents",
        "_extensions",
        "_limits",
        "_name",
        "_sequence_in",
        "_sequence_out",
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
        self._bucket = Bucket(limits.burst, limits.messages_per_second)
        self._bucket.wait(now)
        self._extensions: Extensions | None = None
        """None until the agent said features."""
        self._sequence_in = 0
        self._sequence_out = 0
        self._writing = False
        self._documents = Delivery()
        self._asked: set[str] = set()
        self._answers: list[Answered] = []
        """Wait for room; no more than were asked."""

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
            case SecretsAnswered(message) | Tell(message):
                return self._tell(message)
            case Lost():
                self.state = State.CLOSING
                return NOTHING

    # What the control plane wants.

    def _want(self, offer: Wanted) -> Sequence[Command]:
        active = self.state is State.ACTIVE
        self._documents.want(offer, active=active)
        return self._flush() if active else NOTHING

    def _flush(self) -> Sequence[Command]:
        if self._writing:
            return NOTHING
        if self._answers:
            return self._answer(self._answers.pop(0))
        if self._documents.unsent is None:
            return self._flush_extensions()
        jws = self._documents.take()
        # A compact JWS has only base64url and dots (RFC 7515), so it needs no escaping in JSON.
        return (self._send(f'{{"type":"desired","sequence":{self._sequence_out + 1},"jws":"{jws}"}}'),)

    def _answer(self, answered: Answered) -> Sequence[Command]:
        self._asked.discard(answered.id)
        answer = CertificateAnswer(sequence=self._sequence_out + 1, **answered._asdict())
        return (self._send(answer.model_dump_json(by_alias=True)),)

    def _flush_extensions(self) -> Sequence[Command]:
        message = self._extensions.next() if self._extensions is not None else None
        if message is None:
            return NOTHING
        numbered = message.model_copy(update={"sequence": self._sequence_out + 1})
        return (self._send(numbered.model_dump_json(by_alias=True)),)

    def _tell(self, message: UnnumberedMessage) -> Sequence[Command]:
        if not self.knows(message.type) or self._extensions is None:
            return NOTHING
        if not self._extensions.tell(message):
            return self._close(CloseCode.TOO_MUCH, "TooMuchToTell")
        return self._flush()

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
            case CertificateRequest():
                return self._ask(message)
            case SecretsRequest():
                return self._ask_for_secrets(message)
            case Features():
                self._extensions = Extensions(message)
                return (Observed(message),)
            case Observation() if self._extensions is not None and not self._extensions.is_newer(message):
                return (Ignored("OlderObservation"),)
            case Heartbeat() | Observation() | Usage() | CommandOutput():
                return (Observed(message),)

    def _read(self, data: str | bytes, now: float) -> OfAgent | Close:
        """Return the message if it may come now, else why the session ends."""
        if self._bucket.take(now):
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
        if message.type not in NEXT[self.state] or not self._is_agreed(message.type):
            return Close(CloseCode.PROTOCOL_ERROR, "UnexpectedMessage")
        if isinstance(message, Hello) and message.protocol != PROTOCOL:
            return Close(CloseCode.UNSUPPORTED, "UnsupportedProtocol")
        if isinstance(message, Hello) and message.agent != self._name:
            return Close(CloseCode.PROTOCOL_ERROR, "ForeignName")
        return message

    def _welcome(self, hello: Hello) -> Sequence[Command]:
        self._documents.greeted(hello)
        wanted = self._documents.wanted
        welcome = Welcome(
            sequence=self._sequence_out + 1,
            protocol=PROTOCOL,
            heartbeat_seconds=self._limits.heartbeat_seconds,
            wanted_generation=wanted.generation if wanted is not None else 0,
            wanted_digest=wanted.digest if wanted is not None else None,
        )
        return Observed(hello), self._send(welcome.model_dump_json(by_alias=True))

    def _report(self, report: Report) -> Sequence[Command]:
        why_not = self._documents.judge(report)
        return (Ignored(why_not),) if why_not else (Observed(report),)

    def _ask(self, request: CertificateRequest) -> Sequence[Command]:
        if request.id in self._asked:
            return (Ignored("AlreadyAsked"),)
        if len(self._asked) >= self._limits.max_asked:
            return self._close(CloseCode.TOO_MUCH, "TooManyRequests")
        self._asked.add(request.id)
        return (Asked(request),)

    def _ask_for_secrets(self, request: SecretsRequest) -> Sequence[Command]:
        assert self._extensions is not None, "what is not agreed upon was refused before"
        why_not = self._extensions.ask(request.id, self._limits.max_asked)
        match why_not:
            case "":
                return (SecretsAsked(request),)
            case "AlreadyAsked":
                return (Ignored(why_not),)
            case _:
                return self._close(CloseCode.TOO_MUCH, why_not)

    # Small steps.

    def knows(self, kind: str) -> bool:
        """Say whether the agent knows messages of this type."""
        return self._extensions is not None and self._extensions.knows(kind)

    def _is_agreed(self, kind: str) -> bool:
        """Features are said once, and what needs one comes after."""
        return self._extensions is None if kind == "features" else kind not in NEEDS or self.knows(kind)

    def _send(self, text: str) -> Send:
        self._sequence_out += 1
        self._writing = True
        return Send(text)

    def _close(self, code: int, reason: str) -> Sequence[Command]:
        self.state = State.CLOSING
        return (Close(code, reason),)


def _size(data: str | bytes) -> int:
    return len(data.encode("utf-8", "surrogatepass")) if isinstance(data, str) else len(data)
