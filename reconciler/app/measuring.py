"""What is known of how agents are: their conditions, their numbers now, and the history of these."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from reconciler.agents.conditions import TYPES, Facts, Probed, Shown, Told, Type, judge, shown
from reconciler.agents.measures import Measures
from reconciler.desired.state import State
from reconciler.observability.agent_metrics import Limits, OfAgent
from reconciler.observability.logs import get_logger
from reconciler.pki.authenticator import Authenticator
from reconciler.settings import Settings
from reconciler.store.history import History
from reconciler.store.protocols import AgentObservation
from reconciler.web.agent_views import condition_view
from reconciler.web.api import Control
from reconciler.web.measure_api import MeasureApi
from schemas.agent import Agent
from schemas.api import AgentCondition
from schemas.deployment import Deployment
from schemas.objects import Kind, ObjectKey

log = get_logger(__name__)

SECONDS: Final = 15.0
"""Between looks at all agents, so that a condition's ``since`` is right to that."""
SLICE: Final = 100
"""Agents that are looked at before others have their turn."""


class Plane(Control, Protocol):
    """:class:`reconciler.app.building.Parts`."""

    @property
    def measuring(self) -> Measuring: ...


class Measuring:
    """``seen`` and ``connected`` are the observer's and the hub's, ``silence`` seconds after which words are stale."""

    def __init__(
        self,
        data: Path,
        *,
        state: Callable[[], State],
        seen: Callable[[], Mapping[str, AgentObservation]],
        connected: Callable[[], frozenset[str]],
        silence: Callable[[], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.history = History(data, clock=clock)
        self.measures = Measures(self.history, self.placed)
        self.health: Callable[[str], Mapping[str, str]] = lambda _: {}
        """Of an agent's deployments (``<team>/<name>``), as it was observed last."""
        self.probed: Callable[[str], Probed | None] = lambda _: None
        """What probes of an agent's endpoints found last."""
        self._state = state
        self._seen = seen
        self._connected = connected
        self._silence = silence
        self._clock = clock
        self._began = clock()
        self._shown: dict[str, dict[Type, Shown]] = {}

    async def run(self) -> None:
        """Keep conditions and history up to date, for ever."""
        await self.history.start()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.history.run(), name="history")
            group.create_task(self._watch(), name="conditions")

    async def close(self) -> None:
        """Write what was gathered."""
        await self.history.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(SECONDS)
            try:
                names = self.names()
                self.measures.forget(frozenset(names))
                for gone in self._shown.keys() - set(names):
                    del self._shown[gone]
                for start in range(0, len(names), SLICE):
                    now, connected = self._clock(), self._connected()
                    for name in names[start : start + SLICE]:
                        self._look(name, now, connected)
                    await asyncio.sleep(0)
            except Exception:  # a bug must not end the task
                log.exception("judging how agents stand ended by a bug, trying again")

    def names(self) -> list[str]:
        """Names of the agents in service."""
        return sorted(key.name for key in self._state().served if key.kind == "Agent")

    def placed(self, agent: str, team: str, name: str) -> bool:
        """Say whether a deployment may be on an agent, by what is in service."""
        deployment, found = self._object("Deployment", team, name), self._object("Agent", "", agent)
        if not isinstance(deployment, Deployment) or not isinstance(found, Agent):
            return False
        selector = deployment.spec.agent_selector
        return agent in deployment.spec.agents or (bool(selector) and selector.items() <= found.metadata.labels.items())

    def agents_of(self, team: str, name: str) -> list[str] | None:
        """Return the agents that a deployment may be on; None where there is no such deployment."""
        if self._object("Deployment", team, name) is None:
            return None
        return [agent for agent in self.names() if self.placed(agent, team, name)]

    def agent(self, name: str) -> Agent | None:
        """Return an agent in service."""
        found = self._object("Agent", "", name)
        return found if isinstance(found, Agent) else None

    def _object(self, kind: Kind, team: str, name: str) -> object | None:
        served = self._state().served.get(ObjectKey(kind, team, name))
        return None if served is None else served.object

    # --- conditions ---------------------------------------------------------------------------------------------

    def conditions(self, names: Iterable[str]) -> dict[str, tuple[AgentCondition, ...]]:
        """Return how each of these agents stands now."""
        now, connected = self._clock(), self._connected()
        return {
            name: tuple(condition_view(one.condition) for one in self._look(name, now, connected)) for name in names
        }

    def statuses(self, name: str) -> tuple[str, ...]:
        """Return the statuses of an agent's conditions when somebody last looked at it."""
        return tuple(one.condition.status for one in self._shown.get(name, {}).values())

    def _look(self, name: str, now: float, connected: frozenset[str]) -> Sequence[Shown]:
        facts, before = self._facts(name, connected), self._shown.get(name, {})
        self._shown[name] = {kind: shown(kind, before.get(kind), judge(kind, facts, now), now) for kind in TYPES}
        return tuple(self._shown[name].values())

    def _facts(self, name: str, connected: frozenset[str]) -> Facts:
        seen, health = self._seen().get(name), self.health(name)
        told = {} if seen is None else {item["id"]: item for item in seen.items if item["id"].startswith("Deployment/")}
        names = sorted({*(one.partition("/")[2] for one in told), *health})
        return Facts(
            connected=name in connected,
            last_seen=None if seen is None else seen.last_seen,
            silence=self._silence(),
            began=self._began,
            outcome="" if seen is None else seen.outcome,
            told=[_told(one, told.get(f"Deployment/{one}", {}), health.get(one, "")) for one in names],
            probed=self.probed(name),
        )

    # --- Prometheus ---------------------------------------------------------------------------------------------

    def of_agents(self) -> list[OfAgent]:
        """Return what Prometheus is told: of agents that fell silent no numbers."""
        now, seen, found = self._clock(), self._seen(), []
        for name, conditions in self.conditions(self.names()).items():
            known = seen.get(name)
            fresh = known is not None and now - known.last_seen <= self._silence()
            found.append(
                OfAgent(
                    name,
                    None if known is None else known.last_seen,
                    {one.type: one.status for one in conditions},
                    known.metrics if known is not None and fresh else {},
                    {
                        key: one.values
                        for key, one in self.measures.usage_of(name).items()
                        if fresh and now - one.at <= 2 * self._silence()
                    },
                )
            )
        return found


def measure_api(plane: Plane, settings: Settings, authenticator: Authenticator) -> MeasureApi:
    """Return the endpoints for how agents are and were."""
    limits = Limits(settings.agent_series, settings.deployment_series)
    return MeasureApi(control=plane, known=plane.measuring, authenticator=authenticator, clock=time.time, limits=limits)


def _told(name: str, item: Mapping[str, object], health: str) -> Told:
    return Told(name, item.get("state") == "Failed", str(item.get("reason", "")), health)
