"""What the agent says by the features that both sides know: what waits, in which order it leaves, and how much. PURE.

Whatever is newer replaces what it makes worthless before that was sent, so an agent in turmoil stays within the rate
that the control plane allows, and says the newest as soon as it may. Only outputs of commands are a stream: their
pieces are joined, and beyond a bound they are left out and counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from schemas.observation import DeploymentObservation
from schemas.session import (
    COMMANDS,
    FEATURES,
    MAX_NUMBER,
    NEEDS,
    OBSERVATIONS,
    SECRETS,
    CommandOutput,
    Observation,
    SecretsRequest,
    Usage,
)
from schemas.session import Features as FeaturesSaid

T = TypeVar("T")
REMEMBERED: Final = 64
"""Observations whose publication is waited for; older ones are too old to matter."""


@dataclass(frozen=True, slots=True)
class TalkLimits:
    """Times are in seconds. The control plane ends a session of more than 10 messages a second, after 100 at once."""

    per_second: float = 5.0
    burst: int = 30
    observations_apart: float = 0.5
    usage_apart: float = 5.0
    max_asked: int = 4
    """Requests for secrets under way at once; the others wait."""
    max_unwritten: int = 4
    """Messages that the connection has not taken yet, above which nothing is added that can wait."""
    piece: int = 32 * 1024
    """Characters of output in one message. JSON may need six bytes for one, and a message has 256 KiB."""
    max_waiting: int = 1024 * 1024
    """Characters of one command's output that may wait."""


class Seen(NamedTuple):
    """An event: all deployments as they are now. ``token`` comes back once every front serves exactly this."""

    deployments: tuple[DeploymentObservation, ...]
    token: object = None


class Say(NamedTuple):
    """An event: something to say, unnumbered."""

    message: Usage | SecretsRequest | CommandOutput


Unnumbered = FeaturesSaid | Observation | Usage | SecretsRequest | CommandOutput


class Pace:
    """A bucket of messages; time is monotonic seconds."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._level = float(burst)
        self._seen: float | None = None

    def ready_at(self, now: float) -> float:
        """Return when the next message may leave; ``now`` or earlier: at once."""
        passed = 0.0 if self._seen is None else max(0.0, now - self._seen)
        self._level = min(self._burst, self._level + passed * self._per_second)
        self._seen = now
        # a whole one may be missing by a rounding error, and then time would seem to stand still
        return now if self._level >= 1 - 1e-9 else now + (1 - self._level) / self._per_second

    def take(self) -> None:
        self._level -= 1


class Requests(Generic[T]):
    """What is asked for by name: the newest request for a name waits while one is under way, and few are at once."""

    def __init__(self, at_once: int) -> None:
        self.under_way: set[str] = set()
        self._at_once = at_once
        self._waiting: dict[str, T] = {}

    def want(self, name: str, request: T) -> None:
        self._waiting[name] = request

    def answered(self, name: str) -> None:
        self.under_way.discard(name)

    @property
    def ready(self) -> bool:
        return self._first() is not None

    def next(self) -> T | None:
        """Return what may be asked now, which is under way then."""
        name = self._first()
        if name is None:
            return None
        self.under_way.add(name)
        return self._waiting.pop(name)

    def _first(self) -> str | None:
        if len(self.under_way) >= self._at_once:
            return None
        return next((one for one in self._waiting if one not in self.under_way), None)


@dataclass(slots=True)
class _Output:
    """What one command wrote and nobody sent yet."""

    pieces: deque[CommandOutput] = field(default_factory=deque)
    characters: int = 0
    dropped: int = 0


class Talk:
    """``knows``: the features for which this agent has somebody."""

    def __init__(self, knows: Iterable[str], limits: TalkLimits) -> None:
        self.features: frozenset[str] = frozenset()
        """What both sides know and the agent said; empty before that."""
        self._knows = tuple(feature for feature in FEATURES if feature in knows)
        self.secrets: Requests[SecretsRequest] = Requests(limits.max_asked)
        self._limits = limits
        self._unsaid: FeaturesSaid | None = None
        self._seen: Seen | None = None
        self._observe_at = float("-inf")
        self._number = 0
        self._tokens: dict[int, object] = {}
        self._usage: Usage | None = None
        self._usage_at = float("-inf")
        self._outputs: dict[str, _Output] = {}

    def offered(self, features: Iterable[str]) -> bool:
        """Take what the control plane offers; True for the first time that something of it is known here."""
        both = tuple(feature for feature in self._knows if feature in set(features))
        if self.features or not both:
            return False
        self.features = frozenset(both)
        self._unsaid = FeaturesSaid(sequence=1, features=both)
        return True

    def seen(self, seen: Seen) -> None:
        self._seen = seen

    def say(self, message: Usage | SecretsRequest | CommandOutput) -> None:
        match message:
            case Usage():
                self._usage = message
            case SecretsRequest():
                self.secrets.want(message.id, message)
            case CommandOutput():
                self._add(message)

    def waiting(self, command: str) -> int:
        """Return how many characters of a command's output wait, for whoever can slow it down."""
        return self._outputs[command].characters if command in self._outputs else 0

    # --- what leaves ----------------------------------------------------------------------------------------------

    def next(self, now: float, unwritten: int) -> Unnumbered | None:
        """Return what leaves now, and forget it."""
        if self._unsaid is not None:
            said, self._unsaid = self._unsaid, None
            return said
        if SECRETS in self.features and (request := self.secrets.next()) is not None:
            return request
        if unwritten >= self._limits.max_unwritten:
            return None
        if self._has_seen and now >= self._observe_at:
            return self._observation(now)
        if self._has_output:
            return self._output()
        if self._has_usage and now >= self._usage_at:
            usage, self._usage = self._usage, None
            self._usage_at = now + self._limits.usage_apart
            return usage
        return None

    def due(self, now: float, unwritten: int) -> float | None:
        """Return when :meth:`next` would return something, as far as that is a matter of time."""
        if self._unsaid is not None or (SECRETS in self.features and self.secrets.ready):
            return now
        if unwritten >= self._limits.max_unwritten:
            return None
        times = [now] if self._has_output else []
        times += [self._observe_at] if self._has_seen else []
        times += [self._usage_at] if self._has_usage else []
        return min(times, default=None)

    @property
    def _has_seen(self) -> bool:
        return OBSERVATIONS in self.features and self._seen is not None

    @property
    def _has_usage(self) -> bool:
        return OBSERVATIONS in self.features and self._usage is not None

    @property
    def _has_output(self) -> bool:
        return COMMANDS in self.features and bool(self._outputs)

    def _observation(self, now: float) -> Observation:
        assert self._seen is not None
        seen, self._seen = self._seen, None
        self._observe_at = now + self._limits.observations_apart
        self._number += 1
        self._tokens[self._number] = seen.token
        if len(self._tokens) > REMEMBERED:
            del self._tokens[next(iter(self._tokens))]
        return Observation(number=self._number, deployments=seen.deployments)

    # --- what comes -----------------------------------------------------------------------------------------------

    def may_come(self, kind: str) -> bool:
        """Say whether a message of this type was agreed upon, or needs no agreement."""
        return kind not in NEEDS or NEEDS[kind] in self.features

    def was_sent(self, number: int) -> bool:
        """Say whether an observation with this number left in this session."""
        return number <= self._number

    def published(self, number: int) -> tuple[object, ...]:
        """Return the token of an observation, in a tuple that is empty for one that does not matter any more."""
        token = (self._tokens[number],) if number in self._tokens else ()
        self._tokens = {one: kept for one, kept in self._tokens.items() if one > number}
        return token

    def stopped(self, command: str) -> None:
        """Nobody waits for what the command wrote."""
        self._outputs.pop(command, None)

    # --- outputs --------------------------------------------------------------------------------------------------

    def _add(self, piece: CommandOutput) -> None:
        waiting = self._outputs.setdefault(piece.id, _Output())
        if waiting.characters + len(piece.text) > self._limits.max_waiting:
            waiting.dropped += max(1, piece.text.count("\n"))
            if not piece.last:
                return
            piece = piece.model_copy(update={"text": ""})
        if waiting.dropped:
            dropped = min(MAX_NUMBER, waiting.dropped + piece.dropped)
            piece, waiting.dropped = piece.model_copy(update={"dropped": dropped}), 0
        waiting.pieces.append(piece)
        waiting.characters += len(piece.text)

    def _output(self) -> CommandOutput:
        """Join what one command wrote, as far as one message can say it; the commands take turns."""
        command = next(iter(self._outputs))
        waiting = self._outputs.pop(command)
        if not waiting.pieces:
            return CommandOutput(id=command, dropped=min(MAX_NUMBER, waiting.dropped))
        piece = waiting.pieces.popleft()
        text, rest = piece.text[: self._limits.piece], piece.text[self._limits.piece :]
        if rest:
            waiting.pieces.appendleft(piece.model_copy(update={"text": rest, "dropped": 0}))
            begun = {"text": text, "last": False, "exit_code": None, "reason": "", "message": ""}
            piece = piece.model_copy(update=begun)
        else:
            piece = self._joined(piece, waiting.pieces)
        waiting.characters -= len(piece.text)
        if waiting.pieces or waiting.dropped:
            self._outputs[command] = waiting
        return piece

    def _joined(self, piece: CommandOutput, following: deque[CommandOutput]) -> CommandOutput:
        texts, size = [piece.text], len(piece.text)
        while following and not piece.last:
            one = following[0]
            if one.stream != piece.stream or one.dropped or size + len(one.text) > self._limits.piece:
                break
            texts.append(one.text)
            size += len(one.text)
            piece = following.popleft().model_copy(update={"dropped": piece.dropped})
        return piece.model_copy(update={"text": "".join(texts)})
