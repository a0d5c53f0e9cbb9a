"""What Traefik does with the requests to one host of a route, read off the objects that the route was compiled to.

A plan compares this instead of the documents: the same document reaches other servers when an agent is quarantined, and
has another health check when the fleet's default changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from reconciler.desired.traefik_model import TraefikObjects


class Reach(NamedTuple):
    """Parts are compared, never shown: a middleware may hold a password's hash."""

    servers: frozenset[tuple[str, int]]
    """Address and weight. Empty: Traefik answers 503, or closes the connection."""
    middlewares: tuple[Any, ...]
    health_checks: tuple[Any, ...]
    sticky: tuple[Any, ...]
    host_header: tuple[Any, ...]
    everything: tuple[Any, ...]


EFFECTS: Final = {
    "health_checks": "changes health check",
    "sticky": "changes stickiness",
    "host_header": "changes the Host header that backends get",
}
"""Part of :class:`Reach` that is about servers → how its change is told."""


def reach(compiled: TraefikObjects, host: str = "") -> Reach:
    """Follow the routers to their servers; with ``host`` only the routers that name it."""
    values: dict[tuple[str, str], Any] = {(one.section, one.name): one.value for one in compiled}
    routers = {
        key: value
        for key, value in values.items()
        if key[0].endswith(".routers") and (not host or f"`{host}`" in value["rule"])
    }
    balancers = [
        found
        for (section, _), router in routers.items()
        for found in _balancers(values, section.replace("routers", "services"), router["service"])
    ]
    return Reach(
        servers=frozenset(server for balancer, share in balancers for server in _servers(balancer, share)),
        middlewares=tuple(value for (section, _), value in values.items() if section.endswith(".middlewares")),
        health_checks=_once(balancer.get("healthCheck") for balancer, _ in balancers),
        sticky=_once(_sticky(values[key]) for key in values if key[0].endswith(".services")),
        host_header=_once(balancer.get("passHostHeader", True) for balancer, _ in balancers),
        everything=(
            [_without(router, "service") for router in routers.values()],
            [(_without(balancer, "serversTransport"), share) for balancer, share in balancers],
            [value for (section, _), value in values.items() if section.endswith(".serversTransports")],
        ),
    )


def _balancers(values: Mapping[tuple[str, str], Any], section: str, name: str) -> Iterator[tuple[Any, int]]:
    """Yield the load balancers behind a service, each with its share."""
    service = values.get((section, name), {})
    if "loadBalancer" in service:
        yield service["loadBalancer"], 1
    for member in service.get("weighted", {}).get("services", ()):
        for balancer, _ in _balancers(values, section, member["name"]):
            yield balancer, member["weight"]


def _without(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Leave out what only leads from one of our names to another."""
    return {key: part for key, part in value.items() if key != name}


def _sticky(service: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
    return service.get("weighted", service.get("loadBalancer", {})).get("sticky")


def _servers(balancer: Mapping[str, Any], share: int) -> Iterator[tuple[str, int]]:
    for server in balancer["servers"]:
        # the scheme belongs to the transport, and is told as such
        yield server.get("address") or server["url"].partition("://")[2], share * server.get("weight", 1)


def _once(values: Iterable[Any]) -> tuple[Any, ...]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return tuple(found)
