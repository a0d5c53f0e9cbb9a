"""Routes for how agents are and were; shapes in ``schemas.api`` and ``schemas.metrics_api``.

``GET /api/v1/agents/{name}``                      scope read  200 :class:`AgentDetail`
``GET /api/v1/agents/{name}/metrics``              scope read  200 :class:`MetricsHistory`
``GET /api/v1/deployments/{team}/{name}/metrics``  scope read  200 :class:`DeploymentHistory`
``GET /metrics/agents``                            scope read  200 Prometheus' text format
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from starlette.requests import Request
from starlette.responses import Response

from reconciler.agents.measures import Measured, Measures, subject_of
from reconciler.errors import Refused
from reconciler.observability import agent_metrics
from reconciler.observability.agent_metrics import Limits, OfAgent
from reconciler.pki.authenticator import Authenticator
from reconciler.store.history import Answer, History
from reconciler.web.agent_views import agent_status, moment
from reconciler.web.api import Control
from reconciler.web.bodies import json_answer
from reconciler.web.endpoint import Endpoint
from schemas.agent import Agent
from schemas.api import AgentDetail, DeploymentMeasures
from schemas.metrics import DEPLOYMENT, MACHINE, Measure
from schemas.metrics_api import (
    AGENT_METRICS_PATH,
    AGENT_PATH,
    DEPLOYMENT_METRICS_PATH,
    EXPOSITION_PATH,
    DeploymentHistory,
    MetricsHistory,
    Points,
)

HOUR: Final = 3600.0
LONGEST: Final = 400 * 86_400.0
"""How far back anybody may ask; no history is older."""
NO_MORE: Final = Limits()
AGENTS_AT_ONCE: Final = 50
"""Whose history one answer about a deployment has."""
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AGO: Final = re.compile(r"[1-9][0-9]{0,6}[smhd]")
_QUERY: Final = {
    "from": "RFC 3339, or how long ago, such as 6h; an hour ago unless said",
    "to": "the same; now unless said",
    "step": "seconds, at least; as fine as there is unless said",
    "metric": "only this one; may be given more than once",
}


class Known(Protocol):
    """:class:`reconciler.app.measuring.Measuring`."""

    @property
    def history(self) -> History: ...
    @property
    def measures(self) -> Measures: ...
    def agent(self, name: str) -> Agent | None: ...
    def agents_of(self, team: str, name: str) -> list[str] | None: ...
    def of_agents(self) -> list[OfAgent]: ...


class _Asked(NamedTuple):
    since: float
    until: float
    step: int | None
    names: frozenset[str] | None


class MeasureApi:
    """The endpoints; ``endpoints()`` is the table. ``limits`` bound what Prometheus gets."""

    def __init__(
        self,
        *,
        control: Control,
        known: Known,
        authenticator: Authenticator,
        clock: Callable[[], float],
        limits: Limits = NO_MORE,
    ) -> None:
        self._control = control
        self._known = known
        self._authenticator = authenticator
        self._clock = clock
        self._limits = limits

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("GET", AGENT_PATH, "An agent with what it reports", self.agent, "read", response=AgentDetail),
            Endpoint("GET", AGENT_METRICS_PATH, "What an agent's machine measured", self.of_agent, "read",
                     response=MetricsHistory, query=_QUERY),
            Endpoint("GET", DEPLOYMENT_METRICS_PATH, "What a deployment used, on each of its agents",
                     self.of_deployment, "read", response=DeploymentHistory, query=_QUERY, team=True),
            Endpoint("GET", EXPOSITION_PATH, "Prometheus metrics with names of agents", self.exposition, "read"),
        )  # fmt: skip

    async def agent(self, request: Request) -> Response:
        """How it stands, what it measured last and what its deployments use."""
        self._require_reader(request)
        name = request.path_params["name"]
        agent = self._agent(name)
        status = agent_status(
            agent,
            self._control.published,
            self._control.observations().get(name),
            connected=name in self._control.connected(),
            conditions=self._control.conditions([name])[name],
            health=self._control.health_of(name),
        )
        deployments = tuple(_measures(key, one) for key, one in self._known.measures.usage_of(name).items())
        return json_answer(AgentDetail(**dict(status), deployments=deployments))

    async def of_agent(self, request: Request) -> Response:
        """The history of the machine."""
        self._require_reader(request)
        name = self._agent(request.path_params["name"]).metadata.name
        return json_answer(await self._history(name, name, self._asked(request, MACHINE), MACHINE))

    async def of_deployment(self, request: Request) -> Response:
        """The history of a deployment on each of its agents."""
        team, name = request.path_params["team"], request.path_params["name"]
        self._require_reader(request, team)
        agents = self._known.agents_of(team, name)
        if agents is None:
            raise Refused("there is no such deployment in service.", status=404, code="unknown-deployment")
        wanted = self._asked(request, DEPLOYMENT)
        found = [
            await self._history(agent, subject_of(agent, team, name), wanted, DEPLOYMENT)
            for agent in agents[:AGENTS_AT_ONCE]
        ]
        return json_answer(DeploymentHistory(team=team, name=name, agents=tuple(found)))

    async def exposition(self, request: Request) -> Response:
        """What Prometheus scrapes."""
        self._require_reader(request)
        content, media_type = await asyncio.to_thread(
            agent_metrics.render, self._known.of_agents(), _texts(MACHINE), _texts(DEPLOYMENT), self._limits
        )
        return Response(content, media_type=media_type)

    async def _history(self, agent: str, subject: str, wanted: _Asked, units: Mapping[str, Measure]) -> MetricsHistory:
        return await history_of(
            self._known.history, agent, subject, since=wanted.since, until=wanted.until, step=wanted.step,
            names=wanted.names, units=units,
        )  # fmt: skip

    def _agent(self, name: str) -> Agent:
        agent = self._known.agent(name)
        if agent is None:
            raise Refused("there is no such agent in service.", status=404, code="unknown-agent")
        return agent

    def _asked(self, request: Request, known: Mapping[str, Measure]) -> _Asked:
        now, query = self._clock(), request.query_params
        until = _time(query.get("to"), now, now)
        since = _time(query.get("from"), now, until - HOUR)
        if since >= until:
            raise Refused("from must be before to.", status=400, code="bad-query")
        names = query.getlist("metric")
        kept = [name for name, measure in known.items() if measure.kept]
        if not set(names) <= set(kept):
            raise Refused(f"metric must be one of {', '.join(kept)}.", status=400, code="bad-query")
        return _Asked(since, until, _step(query.get("step")), frozenset(names) or None)

    def _require_reader(self, request: Request, team: str | None = None) -> None:
        identity = self._authenticator.authenticate(request.method, str(request.url), request.headers, self._clock())
        identity.require("read", team=team)


async def history_of(
    history: History,
    agent: str,
    subject: str,
    *,
    since: float,
    until: float,
    step: int | None,
    units: Mapping[str, Measure],
    names: frozenset[str] | None = None,
) -> MetricsHistory:
    """Return what was measured of an agent, or of a deployment there.

    Raises:
        Transient, Broken: as :meth:`History.series`.
    """
    answer = await history.series(subject, since, until, step=step, names=names)
    return MetricsHistory.model_validate(
        {
            "agent": agent,
            "from": moment(since),
            "to": moment(until),
            "step": answer.step,
            "series": _series(answer, units),
        }
    )


def _texts(table: Mapping[str, Measure]) -> dict[str, str]:
    return {name: one.text for name, one in table.items()}


def _measures(key: tuple[str, str], one: Measured) -> DeploymentMeasures:
    return DeploymentMeasures(team=key[0], name=key[1], at=moment(one.at), values=dict(one.values))


def _series(answer: Answer, units: Mapping[str, Measure]) -> dict[str, Points]:
    found = {}
    for name, points in sorted(answer.series.items()):
        buckets = list(points.values())
        found[name] = Points(
            unit=units[name].unit if name in units else "",
            at=tuple(points),
            samples=tuple(one.samples for one in buckets),
            mean=tuple(one.mean for one in buckets),
            low=tuple(one.low for one in buckets),
            high=tuple(one.high for one in buckets),
        )
    return found


def _time(text: str | None, now: float, default: float) -> float:
    if text is None:
        return default
    if _AGO.fullmatch(text):
        return max(now - int(text[:-1]) * _UNITS[text[-1]], now - LONGEST)
    try:
        found = datetime.fromisoformat(text)
        when = found.timestamp() if found.tzinfo is not None else None
    except (ValueError, OverflowError, OSError):
        when = None
    if when is None:
        hint = "Write it like 2030-01-31T12:00:00Z, or 6h for six hours ago."
        raise Refused("from and to are times.", status=400, code="bad-query", hint=hint)
    return min(max(when, now - LONGEST), now + HOUR)


def _step(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,7}", text):
        raise Refused("step is a whole number of seconds.", status=400, code="bad-query")
    return int(text)
