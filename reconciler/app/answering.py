"""What the API asks of all parts together: :class:`reconciler.web.api.Control`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from reconciler.agents.hub import Hub
from reconciler.app.front_status import front_status
from reconciler.app.health import Health
from reconciler.app.measuring import Measuring
from reconciler.errors import CloudLunacyError
from reconciler.git.mirror import Mirror
from reconciler.loop import Reconciler
from reconciler.observer import AgentObserver
from reconciler.status import Tracker
from reconciler.steps.fronts import Fronts
from reconciler.steps.passing import Published
from reconciler.store.protocols import AgentObservation
from reconciler.store.sqlite import SQLiteStore
from schemas.api import AgentCondition, FrontStatus
from schemas.health_api import AgentHealth, Presence
from schemas.plan import Plan
from schemas.problem import Problem


class Answering:
    """What :class:`reconciler.app.building.Parts` is to the API; these are the parts that it needs for it."""

    loop: Reconciler
    mirror: Mirror
    measuring: Measuring
    health: Health
    _observer: AgentObserver
    _hub: Hub
    _fronts: Fronts
    _tracker: Tracker
    _store: SQLiteStore

    @property
    def published(self) -> Published:
        return self.loop.published

    @property
    def ready(self) -> bool:
        return self.loop.ready

    def problems(self) -> tuple[Problem, ...]:
        return self.loop.problems

    def observations(self) -> dict[str, AgentObservation]:
        return dict(self._observer.seen)

    def connected(self) -> frozenset[str]:
        return self._hub.connected

    def conditions(self, names: Iterable[str]) -> dict[str, tuple[AgentCondition, ...]]:
        return self.measuring.conditions(names)

    def health_of(self, name: str) -> AgentHealth:
        return self.health.of(name)

    def presence_of(self, name: str) -> Presence:
        return self.health.presence(name)

    def wake(self) -> None:
        self.loop.wake()

    def reconsider(self) -> None:
        self.loop.reconsider()

    async def fronts(self) -> tuple[FrontStatus, ...]:
        fleet = self.loop.published.state.fleet
        return tuple([await front_status(front, fleet) for front in self._fronts.fronts])

    async def plan(self, revision: str) -> Plan | None:
        record = self._tracker.get(revision)
        if record is not None:
            return record.plan
        stored = await self._store.record(revision)
        return Plan.model_validate(stored.plan) if stored is not None and stored.plan else None

    async def superseding(self, revision: str) -> str | None:
        """A commit that nobody looked at by itself is part of what was published after it."""
        if len(revision) < 40:
            return None
        for newer in filter(None, dict.fromkeys((self.loop.published.revision, self._tracker.newest))):
            with contextlib.suppress(CloudLunacyError):
                if await self.mirror.descends(newer, revision):
                    return newer
        return None
