"""How much routes are asked: every front's metrics are read now and then, while somebody looks at them.

A Traefik of 10,000 routes tells megabytes, so nothing is read where nobody asked for figures within the last minutes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, cast

from reconciler.errors import CloudLunacyError
from reconciler.observability.logs import get_logger
from reconciler.steps.fronts import Front
from reconciler.traefik.figures import Reading, added, rates, reading
from schemas.traffic_api import RequestFigures, StatusClass

log = get_logger(__name__)

LOOK_SECONDS: Final = 15.0
INTEREST_SECONDS: Final = 300.0
STALE_SECONDS: Final = 120.0
"""Figures that are older are shown no more."""
_BEGUN: Final = "Figures come with the second reading of the fronts' metrics, in a quarter of a minute."


class Figures:
    """``run`` is a task of the application."""

    def __init__(self, fronts: Sequence[Front], *, clock: Callable[[], float] = time.time) -> None:
        self._fronts = fronts
        self._clock = clock
        self._readings: dict[str, tuple[Reading, ...]] = {}
        """Front → its last two readings, older first."""
        self._failures: dict[str, str] = {}
        self._wanted = asyncio.Event()
        self._asked = 0.0

    def of(self, team: str, route: str) -> RequestFigures | None:
        """Return the figures of a route; None where there are none. Somebody looks, so they are read on."""
        self._asked = self._clock()
        self._wanted.set()
        now = self._clock()
        found = [
            one
            for readings in self._readings.values()
            if len(readings) == 2 and now - readings[1].at < STALE_SECONDS
            if (one := rates(readings[0], readings[1], f"{team}_{route}")) is not None
        ]
        total = added(found)
        if total is None:
            return None
        return RequestFigures(
            per_second=round(sum(total.by_class.values()), 3),
            by_class={cast("StatusClass", kind): round(value, 3) for kind, value in sorted(total.by_class.items())},
            mean_seconds=total.mean_seconds,
            since=datetime.fromtimestamp(total.since, UTC),
            until=datetime.fromtimestamp(total.until, UTC),
        )

    @property
    def missing(self) -> str:
        """Why there are no figures; empty where there are."""
        if not self._fronts:
            return "There is no front to ask."
        now = self._clock()
        if any(len(one) == 2 and now - one[1].at < STALE_SECONDS for one in self._readings.values()):
            return ""
        return next((f"{front}: {why}" for front, why in sorted(self._failures.items())), _BEGUN)

    async def run(self) -> None:
        """Read for ever, while somebody looks."""
        while True:
            await self._wanted.wait()
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)
            if self._clock() - self._asked > INTEREST_SECONDS:
                self._wanted.clear()

    async def look(self) -> None:
        """Read every front once."""
        await asyncio.gather(*(self._read(front) for front in self._fronts))

    async def _read(self, front: Front) -> None:
        try:
            text = await front.api.metrics()
            found = await asyncio.to_thread(reading, text, self._clock())
        except CloudLunacyError as error:
            self._failures[front.name] = str(error)
        except Exception:  # what one front tells concerns no other
            log.exception("reading a front's metrics ended by a bug", front=front.name)
            self._failures[front.name] = "its metrics met a bug; the log has the details."
        else:
            self._failures.pop(front.name, None)
            self._readings[front.name] = (*self._readings.get(front.name, ())[-1:], found)
