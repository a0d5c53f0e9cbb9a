"""What has to be done now and then: numbers for Prometheus, old rows, loose objects of git."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from reconciler.desired.state import State
from reconciler.errors import CloudLunacyError
from reconciler.observability.logs import get_logger
from reconciler.observability.metrics import Metrics

log = get_logger(__name__)

SECONDS: Final = 10.0
DAY: Final = 86_400.0
KEPT_EVENTS: Final = 100_000
KEPT_RECORDS: Final = 5_000


class Store(Protocol):
    """What grows: :class:`reconciler.store.sqlite.SQLiteStore`."""

    async def backlog(self) -> tuple[int, float | None]: ...
    async def prune_tokens(self, before: float) -> int: ...
    async def prune_outbox(self, before: float) -> int: ...
    async def prune_events(self, *, keep: int, before: float) -> int: ...
    async def prune_records(self, keep: int) -> int: ...


class History(Protocol):
    """:class:`reconciler.store.history.History`."""

    async def tidy(self) -> None: ...


class Mirror(Protocol):
    """:class:`reconciler.git.mirror.Mirror`."""

    async def tidy(self) -> bool: ...


class Housekeeping:
    """``state`` returns what is in service; ``clock`` the time in POSIX seconds."""

    def __init__(
        self,
        store: Store,
        mirror: Mirror,
        metrics: Metrics,
        state: Callable[[], State],
        clock: Callable[[], float] = time.time,
        *,
        history: History | None = None,
    ) -> None:
        self._history = history
        self._store = store
        self._mirror = mirror
        self._metrics = metrics
        self._state = state
        self._clock = clock

    async def run(self) -> None:
        """Keep house for ever. A disk that is full today may not be tomorrow."""
        while True:
            try:
                await self.once()
            except (CloudLunacyError, OSError) as error:
                log.warning("housekeeping failed, trying again", error=str(error))
            except Exception:  # a bug must not end the task
                log.exception("housekeeping ended by a bug, trying again")
            await asyncio.sleep(SECONDS)

    async def once(self) -> None:
        """Do everything once.

        Raises:
            CloudLunacyError: from the store or the mirror.
        """
        depth, oldest = await self._store.backlog()
        self._metrics.outbox(depth, oldest)
        state = self._state()
        counts = Counter[str](key.kind for key in state.served)
        self._metrics.objects(counts, quarantined=len(list(state.quarantined)))
        now = self._clock()
        await self._store.prune_tokens(now - DAY)
        await self._store.prune_outbox(now - 30 * DAY)
        await self._store.prune_events(keep=KEPT_EVENTS, before=now - 90 * DAY)
        await self._store.prune_records(KEPT_RECORDS)
        await self._mirror.tidy()
        if self._history is not None:
            await self._history.tidy()
