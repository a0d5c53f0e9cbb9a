"""How long to wait after a failure, and when to tell a person that a forge is in trouble, and that it is over."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final

from reconciler.errors import CloudLunacyError, Transient
from reconciler.observability.logs import get_logger

log = get_logger(__name__)

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 300.0
TOLD_AFTER: Final = 5
"""Failures in a row that pass before a person hears of an outage; what only a person can mend is told at once."""

Tell = Callable[[str, str], Awaitable[None]]
"""Takes the type of an event and its message."""


async def tell_nobody(_: str, __: str) -> None:
    """Tell nobody."""


class Patience:
    """Counts failures in a row. ``tell`` is called once for each trouble, and once when it is over."""

    def __init__(self, tell: Tell = tell_nobody, jitter: Callable[[float, float], float] = random.uniform) -> None:
        self._tell = tell
        self._jitter = jitter
        self._failures = 0
        self._told = ""

    async def failed(self, error: Exception) -> float:
        """Return the seconds to wait: exponential with jitter, and no less than the forge asked for."""
        self._failures += 1
        passes = isinstance(error, Transient)
        text = str(error) if isinstance(error, CloudLunacyError) else type(error).__name__
        log.warning("the forge cannot be told, trying again", error=text, failures=self._failures)
        if text != self._told and (not passes or self._failures >= TOLD_AFTER) and not (passes and self._told):
            self._told = text
            await self._tell("ForgeUnavailable", text)
        most = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 20))
        pause = self._jitter(most / 2, most)
        return max(pause, getattr(error, "retry_after", None) or 0.0)

    async def succeeded(self) -> None:
        """Begin anew."""
        self._failures = 0
        if self._told:
            self._told = ""
            await self._tell("ForgeAvailable", "The forge takes statuses and pull requests again.")
