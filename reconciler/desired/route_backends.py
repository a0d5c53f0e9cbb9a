"""The backends of a route as they are: what git names, where it answers, and which part of the requests it gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from reconciler.desired.backends import Endpoint, endpoints
from reconciler.desired.compile_problem import CompileProblem
from reconciler.desired.observed import Placements
from reconciler.desired.shares import Values, shares
from reconciler.desired.view import View
from schemas.explain_api import ExplainedBackend
from schemas.objects import ObjectKey
from schemas.route import Route

IN_SERVICE: Final = "in service"
_SHARES: Final = {"none": "its agent is told to take no requests, or it is unhealthy", "gone": "not reachable"}


def backends_of(
    key: ObjectKey, route: Route, view: View, placements: Placements, values: Values, *, service: str
) -> tuple[ExplainedBackend, ...]:
    """List each address behind a service of a route. ``values``: the route's objects as fronts are given them."""
    section = "http.services" if route.spec.type == "http" else "tcp.services"
    parts = shares(values, section, service)
    found = []
    for number, backend in enumerate(route.spec.backends):
        named = ExplainedBackend(
            agent=backend.agent or "",
            address="",
            deployment=f"{key.team}/{backend.deployment}" if backend.deployment else "",
            weight=backend.weight,
            share=0.0,
            state="it runs nowhere",
        )
        try:
            here = endpoints(key.team, backend, view, ("spec", "backends", number))
        except CompileProblem as problem:
            found.append(named.model_copy(update={"state": str(problem)}))
            continue
        found += [_seen(named, one, placements, parts) for one in here] or [named]
    if route.spec.type == "mongodb":  # each host is one agent's
        agent = next((one.agent for one in found if one.share), None)
        found = [one for one in found if agent is None or one.agent == agent]
    return tuple(found)


def counted(key: ObjectKey, route: Route, view: View, placements: Placements) -> tuple[int, int]:
    """Return how many addresses of a route are to get requests, and how many of these do; as cheap as can be."""
    wanted = served = 0
    for number, backend in enumerate(route.spec.backends):
        if not backend.weight:
            continue
        try:
            here = endpoints(key.team, backend, view, ("spec", "backends", number))
        except CompileProblem:
            wanted += 1
            continue
        wanted += len(here) or 1
        for one in here:
            seen = placements.get(one.agent)
            place = seen.of(int(one.address.rpartition(":")[2])) if seen is not None else None
            served += one.in_service and (place is None or place.share == "full")
    return wanted, served


def _seen(
    named: ExplainedBackend, endpoint: Endpoint, placements: Placements, parts: Mapping[str, float]
) -> ExplainedBackend:
    host, _, port = endpoint.address.rpartition(":")
    place = placements[endpoint.agent].of(int(port)) if endpoint.agent in placements else None
    actual = f"{host}:{place.port}" if place is not None else endpoint.address
    if not endpoint.in_service:
        state = "its agent is quarantined"
    elif named.weight == 0:
        state = "its weight is 0"
    else:
        state = IN_SERVICE if place is None or place.share == "full" else _SHARES[place.share]
    return named.model_copy(
        update={
            "agent": endpoint.agent,
            "address": endpoint.address,
            "actual": "" if actual == endpoint.address else actual,
            "share": round(parts.get(actual, 0.0), 4) if state == IN_SERVICE else 0.0,
            "state": state,
        }
    )
