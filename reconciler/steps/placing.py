"""The published revision once more, under a new generation, where backends answer elsewhere or stand otherwise.

Nothing is settled or planned for it, and no throwaway Traefik looks at it: routes stay what they are, and of their
servers only the port and the weight change, or which of them are there (docs/adr/0045). What many agents tell within a
second is one generation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from reconciler.errors import Broken, Transient
from reconciler.observability.logs import bind_revision, get_logger
from reconciler.observability.metrics import Metrics
from reconciler.status import Tracker
from reconciler.steps.fronts import Fronts
from reconciler.steps.in_service import InService
from reconciler.steps.observing import Observing
from reconciler.steps.passing import Published

log = get_logger(__name__)

PACE_SECONDS: Final = 1.0
"""Between two generations for this reason."""
PATIENCE_SECONDS: Final = 3.0
"""How long a front is waited for, so that one whose API does not answer keeps no other from what is new."""


@dataclass(slots=True)
class Placing:
    """``woken`` ends a wait for fronts early: there is a newer commit."""

    observing: Observing
    fronts: Fronts
    service: InService
    tracker: Tracker
    metrics: Metrics
    woken: asyncio.Event
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    _at: float = field(default=float("-inf"), init=False)
    """When such a generation was published last."""
    _said: str = field(default="", init=False)
    """What was said of a failure last: it is tried again each second."""

    async def look(self) -> None:
        """Publish what is seen otherwise by now, and tell agents whose word counts. Raises nothing."""
        try:
            await self._look()
        except (Transient, Broken) as error:
            if str(error) != self._said:
                log.warning("what is seen of backends cannot be published, trying again", error=str(error))
            self._said = str(error)
        except Exception:  # what is published stays in service
            log.exception("publishing what is seen of backends ended by a bug, trying again")
        else:
            self._said = ""

    async def _look(self) -> None:
        published = self.service.published
        wanted = await self.observing.look(published)
        if wanted != published.placements and not self._too_early(published):
            with bind_revision(published.revision):
                await self._publish(await self.fronts.placed(published, wanted))
        self.observing.acknowledge(self.service.published)

    def _too_early(self, published: Published) -> bool:
        """A front that is still loading is not given the next file: it would never be seen to have loaded one."""
        pause = PACE_SECONDS if published.confirmed else PATIENCE_SECONDS
        return self.monotonic() < self._at + pause

    async def _publish(self, placed: Published) -> None:
        """Nothing else may be published meanwhile: the loop calls this between its passes."""
        generation = await self.fronts.next_generation()
        published = replace(placed, generation=generation, confirmed=not self.fronts.fronts)
        await self.fronts.publish(published, self.clock())
        self._at = self.monotonic()
        self.service.put(published)
        self.metrics.published(generation, published.revision, "observation")
        if self.tracker.get(published.revision) is not None:
            self.tracker.note(published.revision, generation=generation)
        await self._read_back()
        log.info("published as seen", generation=generation)

    async def _read_back(self) -> None:
        enough = asyncio.Event()
        patience = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, enough.set)
        waking = asyncio.create_task(_relay(self.woken, enough), name="newer-commit")
        try:
            await self.service.read_back(enough)
        finally:
            patience.cancel()
            waking.cancel()


async def _relay(event: asyncio.Event, to: asyncio.Event) -> None:
    await event.wait()
    to.set()
