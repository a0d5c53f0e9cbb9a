"""Which agents and deployments there are, and what is where: asked on every page, made once for each state. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from reconciler.desired.state import State
from reconciler.web.deployment_views import agents_of, deployment_of
from schemas.agent import Agent
from schemas.deployment import Deployment
from schemas.objects import ObjectKey

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Placement:
    """All by name, in order."""

    agents: Mapping[str, Agent] = field(default_factory=dict)
    deployments: Mapping[str, ObjectKey] = field(default_factory=dict)
    """``<team>/<name>`` → key."""
    databases: Mapping[str, ObjectKey] = field(default_factory=dict)
    """Those of type mongodb."""
    on: Mapping[str, Sequence[ObjectKey]] = field(default_factory=dict)
    """Agent → deployments that are to run there."""
    teams: Sequence[str] = ()
    """Those that have deployments."""


def placement(state: State) -> Placement:
    """Look at everything in service, once."""
    agents, deployments, databases, on = {}, {}, {}, dict[str, list[ObjectKey]]()
    for key in sorted(key for key in state.served if key.kind in ("Agent", "Deployment")):
        one = state.served[key].object
        if isinstance(one, Agent):
            agents[key.name] = one
        elif isinstance(one, Deployment):
            name = f"{key.team}/{key.name}"
            deployments[name] = key
            if one.spec.type == "mongodb":
                databases[name] = key
            for agent in agents_of(state, key):
                on.setdefault(agent, []).append(key)
    teams = tuple(sorted({key.team for key in deployments.values()}))
    return Placement(agents, deployments, databases, on, teams)


class Placements:
    """Remembers that of the newest state."""

    def __init__(self) -> None:
        self._of: State | None = None
        self._made = Placement()

    def of(self, state: State) -> Placement:
        """Return it; states are values, so the same one has the same."""
        if state is not self._of:
            self._of, self._made = state, placement(state)
        return self._made


def page_of(names: Iterable[str], keep: Callable[[str], bool], after: str, limit: int) -> tuple[list[str], str]:
    """Return the next names, in order, that are kept, and what to ask for those that follow them; empty on the end.

    No more are looked at than it takes to find one too many.
    """
    found: list[str] = []
    for name in names:
        if name > after and keep(name):
            if len(found) == limit:
                return found, found[-1]
            found.append(name)
    return found, ""


def routes_to(state: State, key: ObjectKey) -> tuple[ObjectKey, ...]:
    """Return the routes in service that lead to a deployment: by its name, or by a port that it has on an agent."""
    ports = {(agent, port.host) for agent in agents_of(state, key) for port in deployment_of(state, key).spec.ports}
    known = dict.fromkeys(one for one in state.referrers.get(key, ()) if one.kind == "Route")
    for agent, _ in sorted(ports):
        for one in state.referrers.get(ObjectKey("Agent", "", agent), ()):
            if one.kind == "Route" and one.team == key.team and one not in known and _leads_to(state, one, ports):
                known[one] = None
    return tuple(sorted(known))


def _leads_to(state: State, key: ObjectKey, ports: set[tuple[str, int]]) -> bool:
    route = state.served[key].object
    backends = getattr(route.spec, "backends", ())
    return any((one.agent, one.port) in ports for one in backends)
