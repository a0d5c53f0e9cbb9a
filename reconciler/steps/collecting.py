"""Keep Python's cyclic garbage collector out of bulk work.

What is made of ten thousand files holds a million objects without cycles, nearly all of which stay. The collector walks
them again and again while they are made, which doubles the time of a start, and once more in the middle of a later
commit. So it pauses, and what a bulk has left behind is not looked at any more: reference counts free all of it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

BULK: Final = 100_000
"""Objects from which on walking them would be felt: some ten milliseconds."""

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
