"""What agents and probes have seen, put into what routes were compiled to.

A route names *declared* endpoints: an agent, and a port that git knows. What is seen of them says where each really
answers and whether it may get requests: a :class:`Placement`. :func:`observed` puts placements into the compiled
objects of one route and leaves everything else as it is; the compiled objects themselves are not changed, so that a
verdict which is taken back gives exactly what was there before. Only the port of an address can change: a request
never goes to another host than the agent's own.

What Traefik 3.7 does with weight 0, as tried on it: the server gets no requests, not even of clients whose sticky
cookie names it, but it stands in Traefik's API and is still checked. A member of a weighted service whose own servers
are all out answers its share with 503, so it has to lose its weight there. Servers of TCP have no weight, and are left
out at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, cast

from reconciler.desired.backends import Address, endpoints
from reconciler.desired.compile_problem import CompileProblem
from reconciler.desired.state import State
from reconciler.desired.traefik_model import ObjectValue, TraefikObject, TraefikObjects
from reconciler.desired.view import View
from schemas.objects import ObjectKey
from schemas.route import Route, RouteSpec

Share = Literal["full", "none", "gone"]
"""``none``: listed, with weight 0; ``gone``: not there at all."""
_ORDER: Final[tuple[Share, ...]] = ("gone", "none", "full")


class Placement(NamedTuple):
    """``port``: where the endpoint really answers."""

    port: int
    share: Share = "full"


@dataclass(frozen=True, slots=True)
class AgentPlacements:
    """What is seen of one agent: by declared port, and ``share`` for all that is at the agent."""

    ports: Mapping[int, Placement] = field(default_factory=dict)
    share: Share = "full"

    def of(self, port: int) -> Placement | None:
        """Return what is seen of a declared port; None where it is to be left as declared."""
        found = self.ports.get(port)
        if self.share == "full":
            return found
        if found is None:
            return Placement(port, self.share)
        return found._replace(share=min(found.share, self.share, key=_ORDER.index))


Placements = Mapping[str, AgentPlacements]
"""By agent. An agent that is not there has all its endpoints as declared."""
AS_DECLARED: Final[Placements] = {}
_AS_IT_IS: Final = Placement(0)
"""Share of an address of which nothing is seen."""
GONE: Final = AgentPlacements(share="gone")
Where = Mapping[str, tuple[Placement, ...]]
"""By address (``host:port``) as it was compiled. Several: agents that have one address answer at several ports."""
Services = Mapping[tuple[str, str], ObjectValue]
"""The services of a route by section and name."""


def observed(
    key: ObjectKey, route: Route, compiled: TraefikObjects, view: View, placements: Placements
) -> TraefikObjects:
    """Return what fronts get for a route: ``compiled`` itself where nothing is seen of its backends."""
    if not placements:
        return compiled
    return placed(compiled, _where(key, route, compiled, view, placements))


def affected(state: State, before: Placements, after: Placements, touched: Iterable[ObjectKey] = ()) -> set[ObjectKey]:
    """Return the routes in service that lead to an endpoint whose placement is another one.

    ``touched``: what changes with the state. Deployments that now run elsewhere take their routes along.
    """
    found: set[ObjectKey] = set()
    if not before and not after:
        return found
    view, selecting = state.view(), _selecting(state)
    for agent in before.keys() | after.keys():
        if before.get(agent) != after.get(agent):
            found |= _leading_to(agent, _changed(before.get(agent), after.get(agent)), state, view, selecting)
    for key in touched:
        if key.kind == "Deployment":
            found |= {one for one in state.referrers.get(key, ()) if one.kind == "Route"}
    return found


def routes_of(state: State, agent: str) -> set[ObjectKey]:
    """Return the routes in service that name the agent, or a deployment that runs on it."""
    return _routes_of(state, agent, _selecting(state))


def ports_led_to(state: State, agent: str) -> frozenset[int]:
    """Return the declared ports of an agent to which routes in service lead."""
    view = state.view()
    found: set[int] = set()
    for key in routes_of(state, agent):
        route = state.objects[key]
        assert isinstance(route, Route)
        owners, _ = _owners(key, route.spec, view)
        found |= {_port(address) for address, agents in owners.items() if agent in agents}
    return frozenset(found)


def missing_agents(state: State) -> frozenset[str]:
    """Name the agents that objects in service name and that are not in service themselves."""
    named = (key for key, by in state.referrers.items() if key.kind == "Agent" and by)
    return frozenset(key.name for key in named if key not in state.served)


class Assigned:
    """What git gives agents in one state, asked again and again. ``former``: of a state that differs in little."""

    def __init__(self, state: State, former: Assigned | None = None) -> None:
        self.state = state
        self.missing = missing_agents(state)
        self._view = state.view()
        self.known: dict[tuple[str, tuple[str, str]], frozenset[int]] = {}
        if former is not None:
            changed = {one for one in {deployment for _, deployment in former.known} if self._differs(one, former)}
            self.known = {key: ports for key, ports in former.known.items() if key[1] not in changed}

    def _differs(self, deployment: tuple[str, str], former: Assigned) -> bool:
        key, before = ObjectKey("Deployment", *deployment), former.state
        is_same = self.state.objects.get(key) is before.objects.get(key)
        return not is_same or self.state.selected.get(key) != before.selected.get(key)

    def __call__(self, agent: str, deployment: tuple[str, str]) -> frozenset[int]:
        """Return the host ports that a deployment (team and name) has on an agent; empty where it does not run."""
        found = self.known.get((agent, deployment))
        if found is None:
            found = self.known[agent, deployment] = self._ports(agent, *deployment)
        return found

    def _ports(self, agent: str, team: str, name: str) -> frozenset[int]:
        deployment = self._view.deployment(team, name)
        if deployment is None or agent not in self._view.agent_names_of(team, deployment):
            return frozenset()
        return frozenset(mapping.host for mapping in deployment.spec.ports)


# --- which addresses are meant --------------------------------------------------------------------------------------


def _where(key: ObjectKey, route: Route, compiled: TraefikObjects, view: View, placements: Placements) -> Where:
    """Return address → placements, for the addresses of a route that are not to be left as declared."""
    owners, lost = _owners(key, route.spec, view)
    found = {address: _all(address, agents, placements) for address, agents in owners.items()}
    if lost:  # the last good version of a route leads to an agent that is not there any more
        leftover = (one for one in _addresses_in(compiled) if one not in owners)
        found |= {one: (Placement(_port(one), "gone"),) for one in leftover if _port(one) in lost}
    return {address: places for address, places in found.items() if places}


def _owners(key: ObjectKey, spec: RouteSpec, view: View) -> tuple[dict[str, dict[str, bool]], set[int]]:
    """Resolve what a route names: address → its agents, and whether each may get traffic; ports of agents that are not
    there. Several agents may have one address.
    """
    owners: dict[str, dict[str, bool]] = {}
    lost: set[int] = set()
    for named in _named(spec):
        try:
            found = endpoints(key.team, named, view, ())
        except CompileProblem:
            if named.agent is not None and named.port is not None and view.agent(named.agent) is None:
                lost.add(named.port)
            continue
        for endpoint in found:
            owners.setdefault(endpoint.address, {})[endpoint.agent] = endpoint.in_service
    return owners, lost


def _named(spec: RouteSpec) -> Iterator[Address]:
    yield from spec.backends
    for middleware in spec.middlewares:
        if middleware.forward_auth is not None:
            yield middleware.forward_auth.address
        if middleware.maintenance is not None and middleware.maintenance.page is not None:
            yield middleware.maintenance.page


def _all(address: str, agents: Mapping[str, bool], placements: Placements) -> tuple[Placement, ...]:
    """Return where the agents at an address answer, each port once; empty where that is as declared for all."""
    declared = _port(address)
    found: dict[int, Placement] = {}
    for agent, in_service in agents.items():
        placement = placements[agent].of(declared) if agent in placements else None
        one = Placement(declared, "gone") if not in_service else placement or Placement(declared)
        other = found.get(one.port)
        if other is None or _ORDER.index(one.share) > _ORDER.index(other.share):
            found[one.port] = one
    everything = tuple(found.values())
    return () if everything == (Placement(declared),) else everything


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _routes_of(state: State, agent: str, selecting: Mapping[str, Sequence[ObjectKey]]) -> set[ObjectKey]:
    naming = state.referrers.get(ObjectKey("Agent", "", agent), {})
    found = {key for key in naming if key.kind == "Route"}
    for deployment in (*(key for key in naming if key.kind == "Deployment"), *selecting.get(agent, ())):
        found |= {key for key in state.referrers.get(deployment, ()) if key.kind == "Route"}
    return {key for key in found if isinstance(state.objects.get(key), Route)}


def _selecting(state: State) -> dict[str, list[ObjectKey]]:
    """Return agent → the deployments that chose it by label."""
    found: dict[str, list[ObjectKey]] = {}
    for key, names in state.selected.items():
        for name in names:
            found.setdefault(name, []).append(key)
    return found


def _changed(before: AgentPlacements | None, after: AgentPlacements | None) -> AbstractSet[int] | None:
    """Return the declared ports whose placement is another; None: all of the agent's."""
    old, new = before or AgentPlacements(), after or AgentPlacements()
    if old.share != new.share:
        return None
    return {port for port in old.ports.keys() | new.ports.keys() if old.ports.get(port) != new.ports.get(port)}


def _leading_to(
    agent: str,
    ports: AbstractSet[int] | None,
    state: State,
    view: View,
    selecting: Mapping[str, Sequence[ObjectKey]],
) -> set[ObjectKey]:
    routes = _routes_of(state, agent, selecting)
    if ports is None:
        return routes
    found: set[ObjectKey] = set()
    for key in routes:
        route = state.objects[key]
        assert isinstance(route, Route)
        owners, _ = _owners(key, route.spec, view)
        if any(agent in agents and _port(address) in ports for address, agents in owners.items()):
            found.add(key)
    return found


# --- what becomes of the objects ------------------------------------------------------------------------------------


def placed(objects: TraefikObjects, where: Where) -> TraefikObjects:
    """Put placements into objects. What does not change is the same."""
    if not where:
        return objects
    services: Services = {(one.section, one.name): one.value for one in objects if one.section.endswith(".services")}
    return tuple(_placed(one, where, services) for one in objects)


def _placed(one: TraefikObject, where: Where, services: Services) -> TraefikObject:
    value = cast("dict[str, Any]", one.value)
    if one.section == "http.middlewares" and "forwardAuth" in value:
        return _replaced(one, "forwardAuth", _asked(value["forwardAuth"], where))
    if not one.section.endswith(".services"):
        return one
    if "weighted" in value:
        return _replaced(one, "weighted", _weighted(value["weighted"], one.section, where, services))
    return _replaced(one, "loadBalancer", _balancer(value["loadBalancer"], where))


def _replaced(one: TraefikObject, name: str, options: Mapping[str, Any]) -> TraefikObject:
    value = cast("dict[str, Any]", one.value)
    if options == value[name]:
        return one
    return one._replace(value=cast("ObjectValue", {**value, name: options}))


def _balancer(balancer: Mapping[str, Any], where: Where) -> Mapping[str, Any]:
    servers = [moved for server in balancer["servers"] for moved in _server(server, where)]
    return {**balancer, "servers": servers}


def _server(server: Mapping[str, Any], where: Where) -> Iterator[Mapping[str, Any]]:
    address = _address_of(server)
    if address not in where:
        yield server
        return
    name = "address" if "address" in server else "url"
    for placement in where[address]:
        if placement.share == "gone" or (name == "address" and placement.share == "none"):
            continue
        moved = {**server, name: server[name].removesuffix(address) + _at(address, placement.port)}
        yield {**moved, "weight": 0} if placement.share == "none" else moved


def _weighted(
    weighted: Mapping[str, Any],
    section: str,
    where: Where,
    services: Services,
) -> Mapping[str, Any]:
    members = []
    for member in weighted["services"]:
        share = _share(member["name"], section, where, services)
        if share != "gone":
            members.append({**member, "weight": 0} if share == "none" else member)
    return {**weighted, "services": members}


def _share(name: str, section: str, where: Where, services: Services) -> Share:
    """Return the best share of what is behind a service."""
    value = cast("dict[str, Any]", services[section, name])
    if "weighted" in value:
        found = [_share(member["name"], section, where, services) for member in value["weighted"]["services"]]
    else:
        addresses = map(_address_of, value["loadBalancer"]["servers"])
        found = [one.share for address in addresses for one in where.get(address, (_AS_IT_IS,))]
    return max(found, key=_ORDER.index, default="full")


def _asked(options: Mapping[str, Any], where: Where) -> Mapping[str, Any]:
    """Let a server that is asked for permission be asked at its port. It is never left out: that fails closed."""
    scheme, _, rest = options["address"].partition("://")
    address, slash, path = rest.partition("/")
    if address not in where:
        return options
    best = max(where[address], key=lambda one: _ORDER.index(one.share))
    return {**options, "address": f"{scheme}://{_at(address, best.port)}{slash}{path}"}


def _at(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}"


def _address_of(server: Mapping[str, Any]) -> str:
    found = server["address"] if "address" in server else server["url"].partition("://")[2]
    assert isinstance(found, str)
    return found


def _addresses_in(objects: TraefikObjects) -> Iterator[str]:
    for one in objects:
        if one.section.endswith(".services"):
            value = cast("dict[str, Any]", one.value)
            yield from map(_address_of, value.get("loadBalancer", {}).get("servers", ()))
