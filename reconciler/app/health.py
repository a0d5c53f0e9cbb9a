"""How backends are: who hears it, who asks for it, and whom it is told."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Protocol

from reconciler.agents.conditions import Probed
from reconciler.agents.directory import AgentDirectory
from reconciler.agents.hub import Hub
from reconciler.app.measuring import Measuring
from reconciler.desired.verdicts import Change, Endpoint
from reconciler.errors import CloudLunacyError
from reconciler.loop import Reconciler
from reconciler.observability.health_metrics import HealthMetrics
from reconciler.observability.logs import get_logger
from reconciler.observability.metrics import Metrics
from reconciler.observer import AgentObserver
from reconciler.pki.authenticator import Authenticator
from reconciler.status import Tracker
from reconciler.steps.fronts import Fronts
from reconciler.steps.knocking import Knocking
from reconciler.steps.observing import Observing, reason_of
from reconciler.steps.passing import Published
from reconciler.steps.placing import Placing
from reconciler.store.sqlite import SQLiteStore
from reconciler.traefik.severing import Severing
from reconciler.waking import Waking
from reconciler.web.drain_api import DrainApi, drain_view
from schemas.health_api import AgentHealth, EndpointHealth, Presence
from schemas.objects import ObjectKey

log = get_logger(__name__)


class Plane(Protocol):
    """:class:`reconciler.app.building.Parts`."""

    @property
    def published(self) -> Published: ...


class Health:
    """``silence`` are the seconds after which an agent counts as silent."""

    def __init__(
        self,
        plane: Plane,
        store: SQLiteStore,
        metrics: Metrics,
        directory: AgentDirectory,
        silence: Callable[[], float],
    ) -> None:
        self.observing = Observing(store, store, silence=silence, barred=lambda: directory.barred_keys)
        self._plane = plane
        self._metrics = metrics
        self._knocking = Knocking(self.observing.judge, lambda: plane.published, self._nudge)
        self._counted = HealthMetrics(metrics.registry, self._counts)
        self.observing.on_change = self._changed

    def hear(self, observer: AgentObserver, measuring: Measuring) -> None:
        """Hear what agents say, and say how their deployments are."""
        observer.witness = self.observing
        measuring.health, measuring.probed = self.told, self.probed

    def connect(
        self, loop: Reconciler, fronts: Fronts, hub: Hub, severing: Severing, *, tracker: Tracker, waking: Waking
    ) -> None:
        """Have what is seen published, agents told, and connections ended where backends really answer."""
        loop.service.on_confirmed, severing.elsewhere = severing.confirmed, self.observing.elsewhere
        placing = Placing(self.observing, fronts, loop.service, tracker, self._metrics, waking.woken)
        loop.beside = placing.look
        loop.service.on_loaded = self.observing.acknowledge
        self.observing.nudge, self.observing.teller = waking.nudge, hub

    def _nudge(self) -> None:
        self.observing.nudge()

    def _changed(self, change: Change) -> None:
        self._counted.changed(is_out=change.is_out)

    async def load(self, agents: Iterable[str]) -> None:
        """Take up what an earlier process knew. ``agents``: those that were connected at some time."""
        await self.observing.load(agents)

    async def run(self) -> None:
        """Probe the endpoints of silent agents, for ever."""
        await self._knocking.run()

    async def close(self) -> None:
        """Write what was not written yet."""
        try:
            await self.observing.flush()
        except CloudLunacyError as error:
            log.warning("what agents told last cannot be written", error=str(error))
        except Exception:  # a bug must not keep the rest from being closed
            log.exception("writing what agents told last ended by a bug")

    def api(self, authenticator: Authenticator) -> DrainApi:
        """Return its endpoints."""
        return DrainApi(authenticator=authenticator, drains=self.observing, is_there=self._is_there)

    def _is_there(self, name: str) -> bool:
        return ObjectKey("Agent", "", name) in self._plane.published.state.objects

    # --- what is shown ------------------------------------------------------------------------------------------

    def of(self, name: str) -> AgentHealth:
        """Return how an agent and what routes lead to there is."""
        judge, drained = self.observing.judge, self.observing.drains.get(name)
        seen = judge.agents.get(name)
        if seen is None:
            return AgentHealth()
        now, wall = time.monotonic(), time.time()
        shown = [
            EndpointHealth(
                port=one.declared,
                actual=one.port,
                deployment="/".join(one.deployment or ()),
                verdict=one.verdict,
                in_service=not one.is_out and drained is None,
                since=datetime.fromtimestamp(wall - (now - one.since), UTC),
                reason=reason_of(one) or ("its agent is drained" if drained is not None else ""),
            )
            for one in self._endpoints(name)
        ]
        return AgentHealth(
            presence=seen.presence(now, judge.timeout),
            drain=None if drained is None else drain_view(drained),
            endpoints=tuple(sorted(shown, key=lambda one: one.port)),
        )

    def presence(self, name: str) -> Presence:
        """Return whether an agent is there."""
        seen, judge = self.observing.judge.agents.get(name), self.observing.judge
        return "Unknown" if seen is None else seen.presence(time.monotonic(), judge.timeout)

    def _endpoints(self, name: str) -> list[Endpoint]:
        """Return those that git knows; what else an agent tells of is nobody's business."""
        state, seen = self._plane.published.state, self.observing.judge.agents[name]
        if state.fleet is None:
            return []
        assigned = self.observing.assigned(state)
        return [
            one
            for one in seen.endpoints.values()
            if one.deployment is None or one.declared in assigned(name, one.deployment)
        ]

    def told(self, name: str) -> Mapping[str, str]:
        """Return deployment → health, as the agent told it last."""
        seen = self.observing.judge.agents.get(name)
        return {} if seen is None else {"/".join(key): one.health for key, one in seen.told.items()}

    def probed(self, name: str) -> Probed | None:
        """Return what the last round of probes found; None where the agent is not silent."""
        found = self._knocking.found.get(name)
        return None if found is None else Probed(*found)

    def _counts(self) -> Mapping[str, int]:
        counts: Counter[str] = Counter()
        for name in list(self.observing.judge.agents):
            is_drained = name in self.observing.drains
            counts.update("drained" if is_drained else one.verdict for one in self._endpoints(name))
        return counts
