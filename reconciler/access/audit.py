"""What is written down about who came in and who did not: events, and never so many that they hide the others.

What people do who were let in is told at once. What strangers can bring about, and what somebody is denied again and
again, is told a few times and then counted; the next that is told says how many there were.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Literal

import structlog

from reconciler.agents.rates import Bucket
from reconciler.errors import CloudLunacyError
from reconciler.store.protocols import Event, EventStore
from schemas.text import visible

log = structlog.get_logger(__name__)

REFUSALS: Final = 10
"""Refused logins that are told at once, and one more in each :data:`REFUSAL_SECONDS`."""
REFUSAL_SECONDS: Final = 60.0
DENIAL_SECONDS: Final = 600.0
"""The same denial to the same caller is told once in this time."""
DENIALS: Final = 30
REMEMBERED: Final = 1000
WAITING: Final = 100
LONGEST: Final = 500
"""Characters of a message."""


class Audit:
    """``run`` is a task of the application."""

    def __init__(self, events: EventStore, *, clock: Callable[[], float] = time.time) -> None:
        self._events = events
        self._clock = clock
        self._refusals = Bucket(REFUSALS, 1 / REFUSAL_SECONDS)
        self._denials = Bucket(DENIALS, DENIALS / DENIAL_SECONDS)
        self._untold = {"LoginRefused": 0, "AccessDenied": 0}
        self._told: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._queue: asyncio.Queue[Event] = asyncio.Queue(WAITING)

    async def tell(
        self, kind: str, subject: str, message: str, *, actor: str, severity: Literal["info", "warning"] = "info"
    ) -> None:
        """Write an event of somebody who was let in."""
        await self._events.append(
            Event(self._clock(), kind, severity, subject, visible(message)[:LONGEST], actor=actor)
        )

    def refused(self, message: str, *, actor: str = "") -> None:
        """Note a login that was refused, as far as strangers may fill the timeline."""
        if self._refusals.take(self._clock()):
            self._untold["LoginRefused"] += 1
            return
        self._note("LoginRefused", "login", message, actor)

    def denied(self, actor: str, method: str, path: str, why: str, *, endpoint: str = "") -> None:
        """Note that a caller who is known may not do what it tried; ``endpoint``: the same for all paths of a kind."""
        key, now = (actor, method, endpoint or path), self._clock()
        if now < self._told.get(key, -DENIAL_SECONDS) + DENIAL_SECONDS:
            return
        if self._denials.take(now):
            self._untold["AccessDenied"] += 1
            return
        self._told.pop(key, None)
        self._told[key] = now
        while len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        self._note("AccessDenied", "access", f"{actor} may not {method} {path[:200]}: {why}", actor)

    def _note(self, kind: str, subject: str, message: str, actor: str) -> None:
        count = self._untold[kind]
        more = f" ({count:,} more since the last that is shown)" if count else ""
        event = Event(self._clock(), kind, "warning", subject, visible(message)[:LONGEST] + more, actor=actor)
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._untold[kind] += 1
            return
        self._untold[kind] = 0

    async def run(self) -> None:
        """Write for ever what was noted. A disk that is full today may not be tomorrow."""
        while True:
            event = await self._queue.get()
            try:
                await self._events.append(event)
            except CloudLunacyError as error:
                log.warning("an event of the audit could not be written", type=event.type, error=str(error))

    async def written(self) -> None:
        """Write what waits. For who cannot wait for ``run``."""
        while not self._queue.empty():
            await self._events.append(self._queue.get_nowait())
