"""Which backends lose a way in from one state to the next, so that connections which came that way must end.

Traefik leaves established TCP connections alone, whatever becomes of their router. For HTTP that is right: a request is
soon done. A connection to a database may last for weeks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reconciler.desired.backends import endpoints
from reconciler.desired.compile_problem import CompileProblem
from reconciler.desired.state import State
from reconciler.desired.traefik_model import TraefikObject
from reconciler.desired.view import View
from schemas.objects import ObjectKey
from schemas.route import Route

Way = tuple[ObjectKey, tuple[str, ...]]
"""The route by which clients come, and the ranges of its IP allow lists."""


def lost_ways(before: State, after: State) -> tuple[str, ...]:
    """Return the backends (``host:port``) that some client could reach and cannot any more.

    That is where a route of type tcp or mongodb is gone, an agent is gone or in quarantine, or an IP allow list has
    changed. Where another route still leads to the backend, or the last good version of one to an agent that is gone,
    clients are cut off too, and come again. A backend of weight 0 keeps its connections: it is taken out of service,
    and not away from anybody.
    """
    if before is after:
        return ()
    former, present = _ways(before), _ways(after)
    return tuple(sorted(address for address, ways in former.items() if not ways <= present.get(address, set())))


def _ways(state: State) -> dict[str, set[Way]]:
    found: dict[str, set[Way]] = {}
    view = state.view()
    for key, one in state.objects.items():
        if isinstance(one, Route) and one.spec.type != "http":
            ranges = tuple(
                network
                for middleware in one.spec.middlewares
                if middleware.ip_allow_list is not None
                for network in middleware.ip_allow_list.ranges
            )
            for address in _addresses(key, one, state, view):
                found.setdefault(address, set()).add((key, ranges))
    return found


def _addresses(key: ObjectKey, route: Route, state: State, view: View) -> set[str]:
    found: set[str] = set()
    for index, backend in enumerate(route.spec.backends):
        try:
            resolved = endpoints(key.team, backend, view, ("spec", "backends", index))
        except CompileProblem:
            if backend.agent is None:  # its deployment is gone, by a slip perhaps: the last good version is in service
                found |= set(_compiled(state.compiled.get(key, ())))
            continue
        found |= {endpoint.address for endpoint in resolved if endpoint.in_service}
    return found


def _compiled(objects: Iterable[TraefikObject]) -> Iterator[str]:
    for section, _, value in objects:
        if section == "tcp.services":
            balancer = value.get("loadBalancer", {})
            yield from (server["address"] for server in balancer.get("servers", ()))  # type: ignore[attr-defined]
