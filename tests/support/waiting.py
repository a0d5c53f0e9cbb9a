"""Wait for a condition instead of sleeping for luck."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
INTERVAL = 0.02


def wait_for(condition: Callable[[], T], deadline: float = 30.0, *, what: str = "the condition") -> T:
    """Return the first true value of ``condition``; fail after ``deadline`` seconds."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true within {deadline} s; last value: {value!r}")
        time.sleep(INTERVAL)


async def eventually(
    condition: Callable[[], T | Awaitable[T]], deadline: float = 30.0, *, what: str = "the condition"
) -> T:
    """The same for coroutines: ``condition`` may be a function or a coroutine function."""
    end = time.monotonic() + deadline
    while True:
        answer = condition()
        value: T = await answer if isinstance(answer, Awaitable) else answer
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true within {deadline} s; last value: {value!r}")
        await asyncio.sleep(INTERVAL)
