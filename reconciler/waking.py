"""When the loop looks again: after the poll interval, when somebody wakes it, after a pause when something failed.

Between two looks it does what needs no look, each second and when somebody nudges it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

JITTER: Final = 0.1
"""Polls come this share of the interval earlier or later, so that many control planes do not ask at one moment."""
BACKOFF_FIRST: Final = 1.0
BACKOFF_MOST: Final = 5.0
"""Longest pause in seconds after a failure, unless polls are further apart than that: a remote that is away is asked no
more often than one that answers, and no later when it comes back."""
LEAST: Final = 0.05
MEANWHILE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Wakes:
    """How often something outside may make the loop look: ``burst`` at once, one more every ``seconds``."""

    burst: int = 5
    seconds: float = 1.0


class _Wake(asyncio.Event):
    """Whoever sets it ends a pause as well."""

    def __init__(self, stirred: asyncio.Event) -> None:
        super().__init__()
        self._stirred = stirred

    def set(self) -> None:
        super().set()
        self._stirred.set()


class Waking:
    """``woken`` is set from the moment somebody wakes the loop until it looks. Times in seconds."""

    def __init__(
        self,
        poll_seconds: float,
        *,
        wakes: Wakes = Wakes(),
        randomness: Callable[[float, float], float] = random.uniform,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stirred = asyncio.Event()
        self.woken = _Wake(self._stirred)
        self._poll_seconds = poll_seconds
        self._wakes = wakes
        self._random = randomness
        self._clock = clock
        self._tokens, self._refilled = float(wakes.burst), clock()
        self._failures = 0

    def nudge(self) -> None:
        """Have what is done meanwhile done now: something beside the repository has changed."""
        self._stirred.set()

    async def after_success(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """Wait for the next poll or a wake. ``meanwhile`` is called every second."""
        self._failures = 0
        await self._pause(self._poll_seconds * self._random(1 - JITTER, 1 + JITTER), meanwhile)

    async def after_failure(self, meanwhile: Callable[[], Awaitable[None]], *, at_least: float = LEAST) -> None:
        """Wait with exponential back-off and full jitter, or for a wake."""
        longest = max(BACKOFF_MOST, self._poll_seconds)
        pause = self._random(0, min(longest, BACKOFF_FIRST * 2.0 ** min(self._failures, 10)))
        self._failures += 1
        await self._pause(max(at_least, pause), meanwhile)

    async def _pause(self, seconds: float, meanwhile: Callable[[], Awaitable[None]]) -> None:
        now = self._clock()
        end = now + seconds
        self._tokens = min(self._wakes.burst, self._tokens + (now - self._refilled) / self._wakes.seconds)
        self._refilled = now
        if self._tokens < 1:
            await asyncio.sleep(min(seconds, (1 - self._tokens) * self._wakes.seconds))
        while not self.woken.is_set():
            if (left := end - self._clock()) <= 0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), min(left, MEANWHILE_SECONDS))
            self._stirred.clear()
            if not self.woken.is_set():
                await meanwhile()
        self._tokens -= 1
