"""Where the feed hears of changes: records, agents, what is published, the timeline, the fronts.

Who changes something calls (records, agents, events). The rest is looked at: what is published once in a while, and
what has to be asked for only while somebody listens to it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Final, Protocol

from reconciler.app.measuring import Measuring
from reconciler.convergence import Record, to_status
from reconciler.desired.state import State
from reconciler.observability.logs import get_logger
from reconciler.observer import AgentObserver
from reconciler.pki.authenticator import Authenticator
from reconciler.status import Tracker
from reconciler.steps.passing import Published
from reconciler.store.protocols import Event
from reconciler.store.sqlite import SQLiteStore
from reconciler.web.event_views import event_view
from reconciler.web.feed import Feed
from reconciler.web.stream_api import StreamApi
from schemas.api import FrontStatus
from schemas.health_api import Presence
from schemas.objects import ObjectKey
from schemas.problem import Problem

log = get_logger(__name__)

LOOK_SECONDS: Final = 0.5
AGENTS_EVERY: Final = 4
"""Looks at what is published for one at all agents: that one is silent says nobody, the clock does."""
FRONTS_EVERY: Final = 10
AGENT_PREFIX: Final = "agent/"


class Plane(Protocol):
    """:class:`reconciler.app.building.Parts`."""

    @property
    def published(self) -> Published: ...
    @property
    def measuring(self) -> Measuring: ...
    def problems(self) -> tuple[Problem, ...]: ...
    def presence_of(self, name: str) -> Presence: ...
    async def fronts(self) -> tuple[FrontStatus, ...]: ...


class Feeding:
    """Owns the feed; ``run`` looks, for ever."""

    def __init__(self, plane: Plane, store: SQLiteStore, tracker: Tracker, observer: AgentObserver) -> None:
        self.feed = Feed()
        self._plane = plane
        self._tracker = tracker
        self._served: Mapping[ObjectKey, Hashable] = {}
        self._state: State | None = None
        self._problems: Mapping[str, tuple[Problem, ...]] = {}
        self._agents: Mapping[str, Hashable] = {}
        self._fronts: Mapping[str, FrontStatus] = {}
        tracker.on_change = self._record
        observer.on_news = partial(self.feed.tell, "agent")
        store.on_event = self._event

    def api(self, authenticator: Authenticator, clock: Callable[[], float]) -> StreamApi:
        """Return its endpoint."""
        return StreamApi(feed=self.feed, tracker=self._tracker, authenticator=authenticator, clock=clock)

    async def run(self) -> None:
        """Look at what nobody tells of."""
        looks = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            looks += 1
            try:
                self.look()
                if looks % AGENTS_EVERY == 0 and self.feed.is_heard("agent"):
                    self.look_at_agents()
                if looks % FRONTS_EVERY == 0 and self.feed.is_heard("front"):
                    await self.look_at_fronts()
            except Exception:  # a bug must not end the task
                log.exception("looking for what changed ended by a bug, trying again")

    # --- what is told -------------------------------------------------------------------------------------------

    def _record(self, record: Record) -> None:
        self.feed.tell("revision", record.revision, lambda: to_status(record).model_dump_json(by_alias=True))

    def _event(self, event: Event) -> None:
        self.feed.tell("timeline", str(event.id), lambda: event_view(event).model_dump_json(by_alias=True))
        if event.subject.startswith(AGENT_PREFIX):
            self.feed.tell("agent", event.subject.removeprefix(AGENT_PREFIX))

    # --- what is looked at --------------------------------------------------------------------------------------

    def look(self) -> None:
        """Compare the objects in service, and what is wrong with files, with those of the last look."""
        state, problems = self._plane.published.state, defaultdict[str, list[Problem]](list)
        for problem in self._plane.problems():
            problems[problem.file].append(problem)
        wrong = {file: tuple(every) for file, every in problems.items()}
        changed = [path for path in self._problems.keys() | wrong if self._problems.get(path) != wrong.get(path)]
        self._problems = wrong
        if state is not self._state:
            served: dict[ObjectKey, Hashable] = {key: (one.blob, one.retained) for key, one in state.served.items()}
            gone = self._served.keys() - served
            changed += [
                key.path for key in (*gone, *(k for k, is_now in served.items() if self._served.get(k) != is_now))
            ]
            self._state, self._served = state, served
        for path in dict.fromkeys(changed):
            self.feed.tell("object", path)

    def look_at_agents(self) -> None:
        """Tell of those whose presence or conditions are others than at the last look."""
        measuring = self._plane.measuring
        found = {name: (self._plane.presence_of(name), measuring.statuses(name)) for name in measuring.names()}
        for name, is_now in found.items():
            if self._agents.get(name, is_now) != is_now:
                self.feed.tell("agent", name)
        self._agents = found

    async def look_at_fronts(self) -> None:
        """Ask the fronts what they have loaded."""
        found = {one.name: one for one in await self._plane.fronts()}
        for name, is_now in found.items():
            if self._fronts.get(name, is_now) != is_now:
                self.feed.tell("front", name, partial(is_now.model_dump_json, by_alias=True))
        self._fronts = found
