"""Keep Python's cyclic garbage collector out of bulk work, and from walking what stays.

What is made of ten thousand files holds a million objects without cycles, nearly all of which stay. The collector walks
them again and again while they are made, which doubles the time of a start, and once more in the middle of a later
commit. So it pauses, and what a bulk has left behind is not looked at any more: reference counts free all of it.

The connections of five thousand agents are as many objects again, and one walk over them stops everything for most of
a second, every few seconds. So what a walk that was felt has left alive is not walked either, until there is half as
much again of it, or an hour has passed: what became garbage in cycles meanwhile, such as connections that ended, is
freed then.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal

BULK: Final = 100_000
"""Objects from which on walking them would be felt: some ten milliseconds."""

FELT: Final = 0.02
"""Seconds of a walk."""
LOOK_SECONDS: Final = 60.0
WALK_SECONDS: Final = 3600.0
GROWTH: Final = 0.5
"""Share of all objects by which they may grow before all are walked."""

_OLDEST: Final = 2
_pauses = [0]


@contextmanager
def collector_paused() -> Iterator[None]:
    """Collect nothing within the block. May be nested; all callers are in the event loop's thread."""
    _pauses[0] += 1
    gc.disable()
    try:
        yield
    finally:
        _pauses[0] -= 1
        if gc.get_count()[0] > BULK:
            gc.freeze()
        if not _pauses[0]:
            gc.enable()


class Collector:
    """Decides what Python's collector walks, in the whole process. ``monotonic`` returns seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._began = 0.0
        self._all = 0
        self._since = 0
        """Objects that were left alone since all were walked."""
        self._walked_at = monotonic()

    async def run(self) -> None:
        """Do it for ever."""
        gc.callbacks.append(self.noted)
        try:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                if not _pauses[0]:
                    self.walk_when_due()
        finally:
            gc.callbacks.remove(self.noted)

    def noted(self, phase: Literal["start", "stop"], info: Mapping[str, int]) -> None:
        """Leave alone what is alive after a walk that was felt; :data:`gc.callbacks` calls it."""
        if info["generation"] < _OLDEST:
            return
        if phase == "start":
            self._began = self._monotonic()
        elif self._monotonic() - self._began > FELT:
            self._since += len(gc.get_objects(_OLDEST))
            gc.freeze()

    def walk_when_due(self) -> bool:
        """Free what is garbage among all objects, where it is time; say whether it was."""
        if self._since <= max(BULK, self._all * GROWTH) and self._monotonic() < self._walked_at + WALK_SECONDS:
            return False
        gc.unfreeze()
        self._since = 0
        gc.collect()
        self._all, self._since, self._walked_at = self._since or len(gc.get_objects()), 0, self._monotonic()
        return True
