"""What both sides may say beyond documents and reports, once the agent said that it knows the feature. PURE.

An agent that says nothing of features gets nothing that it does not know (``schemas.session``). Of the state that each
feature needs an idle agent has none: it begins with ``Features``.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from schemas.session import (
    FEATURES,
    NEEDS,
    Command,
    CommandStop,
    Features,
    Observation,
    ObservationPublished,
    SecretsAnswer,
    SecretsRequest,
)

MAX_WAITING: Final = 512
"""Messages that wait for room; an agent that takes none of so many is not there."""

ToldMessage = ObservationPublished | Command | CommandStop
UnnumberedMessage = ToldMessage | SecretsAnswer


class Tell(NamedTuple):
    """An event: say this, under the next number. Its feature must be known, see :meth:`Extensions.knows`."""

    message: ToldMessage


class SecretsAnswered(NamedTuple):
    """An event: what became of a request for secrets."""

    answer: SecretsAnswer


class SecretsAsked(NamedTuple):
    """A command: the agent wants values; :class:`SecretsAnswered` has to follow."""

    request: SecretsRequest


class Extensions:
    """The state of the features of one session."""

    __slots__ = ("_asked", "_number", "_waiting", "features")

    def __init__(self, said: Features) -> None:
        self.features = frozenset(one for one in said.features if one in FEATURES)
        """What both sides know; what else the agent said is of a later version."""
        self._number = 0
        self._asked: set[str] = set()
        self._waiting: deque[UnnumberedMessage] = deque()

    def knows(self, kind: str) -> bool:
        """Say whether messages of this type may be sent, either way."""
        return NEEDS[kind] in self.features

    def tell(self, message: UnnumberedMessage) -> bool:
        """Let a message wait for room; False when too many do."""
        self._waiting.append(message)
        return len(self._waiting) <= MAX_WAITING

    def next(self) -> UnnumberedMessage | None:
        """Return the next message that waits for room, and forget it."""
        if not self._waiting:
            return None
        message = self._waiting.popleft()
        if isinstance(message, SecretsAnswer):
            self._asked.discard(message.id)
        return message

    def is_newer(self, observation: Observation) -> bool:
        """Say whether an observation is newer than all before, and remember that it came."""
        newer = observation.number > self._number
        self._number = max(self._number, observation.number)
        return newer

    def ask(self, item: str, at_once: int) -> str:
        """Note that secrets are asked for; return why that counts for nothing, or nothing where it counts."""
        if item in self._asked:
            return "AlreadyAsked"
        if len(self._asked) >= at_once:
            return "TooManyRequests"
        self._asked.add(item)
        return ""
