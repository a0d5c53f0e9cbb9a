"""A value that is looked at all the time, for tests of what must not change to and fro."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self


class Sampling:
    """``seen``: every value, one each ``interval`` seconds, until the block ends."""

    def __init__(self, look: Callable[[], Any], interval: float = 0.05) -> None:
        self.seen: list[Any] = [look()]
        self._look = look
        self._interval = interval
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @property
    def last(self) -> Any:
        return self.seen[-1]

    def _run(self) -> None:
        while not self._end.wait(self._interval):
            self.seen.append(self._look())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
