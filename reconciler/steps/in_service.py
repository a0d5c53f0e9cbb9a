"""What is in service: until every front has loaded it, and back to what they had loaded before where one does not.

A generation that is published is read back at once, and looked at again between polls as long as that proved nothing.
Loaded by every front it is confirmed, and from then on it is what a failure goes back to (docs/adr/0013). A front that
answers and does not take it gets the confirmed one back under a new number, and the revision is held.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from reconciler.desired.state import State
from reconciler.errors import Broken, Transient
from reconciler.observability.logs import get_logger
from reconciler.observability.metrics import Metrics
from reconciler.status import Tracker
from reconciler.steps.delivery import Delivery
from reconciler.steps.fronts import Fronts, NotLoaded
from reconciler.steps.passing import Published

log = get_logger(__name__)

Confirmed = Callable[[State, State], Awaitable[None]]
"""Told of the state that every front had loaded before, and of the one that every front has loaded now."""


class Consequences(Protocol):
    """What the loop does about it: :class:`reconciler.loop.Reconciler`."""

    async def hold(self, revision: str, reason: str, message: str) -> None:
        """Let the revision wait for a person."""
        ...

    async def repaired(self, revision: str) -> None:
        """Tell that a front's file had to be written again."""
        ...

    def reconsider(self) -> None:
        """Look again at what was held."""
        ...


class InService:
    """``read_back_seconds``: after so long a front that answers and has not loaded what is published is late."""

    def __init__(
        self,
        fronts: Fronts,
        delivery: Delivery,
        tracker: Tracker,
        metrics: Metrics,
        loop: Consequences,
        *,
        read_back_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.published = Published()
        self._confirmed = self.published
        self._fronts = fronts
        self._delivery = delivery
        self._tracker = tracker
        self._metrics = metrics
        self._loop = loop
        self._read_back_seconds = read_back_seconds
        self._clock = clock
        self.on_confirmed: Confirmed | None = None
        self.on_loaded: Callable[[Published], None] = lambda _: None
        """Told of what every front has loaded now."""
        self._late_at = 0.0
        """Monotonic time from which on a front that has not loaded what is published is late."""
        self._was_mended = False
        """The last look found a file to mend. An editor may save in two steps, and another program may not give up: who
        reads the timeline is told once."""
        self._stuck = False
        """A front does not even take what it is given back: it has to be mended, and then everything is looked at."""
        self._given_back, self._tried_again = "", ""
        """Revision that a front did not load in time, until the front shows that it loads anything; and the revision
        that was tried once more then, because the front may have been at fault."""

    # --- what is published --------------------------------------------------------------------------------------

    def resume(self, published: Published, confirmed: Published) -> None:
        """Go on from what was published before a restart."""
        self.published, self._confirmed = published, confirmed
        self._late_at = time.monotonic() + self._read_back_seconds

    def put(self, published: Published) -> None:
        """Take note of what the fronts' files hold now."""
        self.published, self._stuck = published, False
        self._late_at = time.monotonic() + self._read_back_seconds

    def stands_for(self, same: Published) -> None:
        """Take what is published for that of a newer revision, which changes nothing in it."""
        if self._confirmed.generation == self.published.generation:
            self._confirmed = same
        self.published = same

    async def catch_up(self) -> None:
        """After a restart: render what is in service, so that the next commit need not.

        Where the files would hold something else by now, the overlay becomes another one, which the loop publishes.
        """
        if self.published.rendered is None and self.published.state.fleet is not None:
            rendered = replace(self.published, rendered=await self._fronts.rendered(self.published))
            if await self._fronts.is_outdated(rendered):
                rendered = replace(rendered, overlay=replace(rendered.overlay))
            self.stands_for(rendered)

    # --- whether it is loaded -----------------------------------------------------------------------------------

    async def read_back(self, overtaken: asyncio.Event) -> bool:
        """Wait until every front has loaded what was published just now. False: a front refused it, and it is held.

        ``overtaken`` ends the wait early; :meth:`look_after` judges it then.

        Raises:
            Transient, Broken: when the former one cannot be brought back just now.
        """
        published = self.published
        try:
            loaded = await self._fronts.read_back(published, overtaken)
        except NotLoaded as failure:
            await self._go_back(failure)
            return False
        if loaded:
            await self._confirm(published)
        elif not overtaken.is_set():
            text = "a front's API does not answer; its file is written"
            self._tracker.wait(published.revision, "FrontNotReached", text)
        return True

    async def look_after(self) -> None:
        """Undo what was changed by hand, and judge a generation that could not be read back earlier.

        Raises:
            Transient, Broken: when a file cannot be read or written just now.
        """
        if not self.published.revision:
            return
        is_mended = await self._fronts.repair(self.published)
        if is_mended and not self._was_mended:
            await self._loop.repaired(self.published.revision)
        self._was_mended = is_mended
        if not self.published.confirmed:
            await self._look_again(self.published)

    async def _look_again(self, published: Published) -> None:
        try:
            loaded = await self._fronts.look(published)
        except NotLoaded as failure:
            if not self._stuck and (failure.reason != "Late" or time.monotonic() >= self._late_at):
                await self._go_back(failure)
            return
        if not loaded:
            self._late_at = time.monotonic() + self._read_back_seconds  # its time begins when it answers
            return
        await self._confirm(published)
        if self._delivery.told != published.generation:  # going back failed, so the pass ended before agents were told
            await self._tell_agents(published)

    async def _confirm(self, published: Published) -> None:
        """Every front has loaded the generation: from here on it is what a failure goes back to."""
        confirmed = replace(published, confirmed=True)
        if self.on_confirmed is not None:  # first: what a crash prevents is done once it is confirmed after the restart
            await self.on_confirmed(self._confirmed.state, confirmed.state)
        try:
            await self._fronts.confirm(confirmed)
        except (Transient, Broken) as error:  # the next look confirms it
            log.warning("a generation cannot be noted as loaded", generation=published.generation, error=str(error))
            return
        self.published = self._confirmed = confirmed
        record = self._tracker.get(published.revision)
        if record is not None and record.generation == published.generation:
            self._tracker.note(published.revision, waiting=("", ""), stopped=None)
            self._tracker.reach(published.revision, "loaded")
            self._tracker.concern(published.revision, record.wanted, self._delivery.connected)
        if self._stuck or self._given_back not in ("", self._tried_again):
            self._tried_again = self._given_back
            self._loop.reconsider()
        self._stuck, self._given_back = False, ""
        self.on_loaded(confirmed)

    async def _go_back(self, failure: NotLoaded) -> None:
        """A front refuses the generation: bring the last confirmed one back, under a new number, and hold."""
        failed = self.published
        if failed.revision == self._confirmed.revision:
            self._stuck = True  # it is the confirmed one already
            return
        self._metrics.read_back_failed(failure.reason)
        text = f"a front did not take generation {failed.generation}: {failure}"
        if not self._confirmed.revision:
            await self._stay(failed, f"{text}; there is none to go back to")
            return
        generation = await self._fronts.next_generation()
        restored = self._delivery.given_back(self._confirmed, failed, generation)
        await self._fronts.publish(restored, self._clock())
        self.put(restored)
        self._given_back = failed.revision if failure.reason == "Late" else ""
        self._metrics.restored()
        await self._delivery.resume(restored)
        await self._loop.hold(failed.revision, "ReadBackFailed", f"{text}; the last good one is back")

    async def _stay(self, failed: Published, message: str) -> None:
        """Nothing was confirmed before: the front may yet be mended, and agents need not wait for that."""
        self._stuck = True
        await self._tell_agents(failed)
        await self._loop.hold(failed.revision, "ReadBackFailed", message)

    async def _tell_agents(self, published: Published) -> None:
        await self._delivery.resume(published)
        concerned = {name: digest for name, (at, digest) in published.agents.items() if at == published.generation}
        self._tracker.reach(published.revision, "pushed")
        self._tracker.concern(published.revision, concerned, self._delivery.connected)
