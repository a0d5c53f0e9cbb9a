"""Where connections for MongoDB go that no route wants: to doors, each of which says to the driver what is wrong.

Beside :func:`reconciler.desired.routing.catch_all`, whose routers close such connections: these have a higher priority,
and where nobody answers at a door the connection is closed all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from reconciler.desired.matching import CATCH_ALL_PRIORITY
from reconciler.desired.traefik_model import RESERVED, Router, RouterTLS, TraefikObject, TraefikObjects
from schemas.fleet import Fleet

Door = Literal["plain", "unnamed", "unknown"]
"""No TLS; TLS without a server name; TLS with a name that no route has."""
DOORS: Final[tuple[Door, ...]] = get_args(Door)
MOST_OF_ONE: Final = 16
"""Connections at a time of one client address: a driver opens three, and nobody shall keep others from being told."""
_RULES: Final[Mapping[Door, tuple[str, int, RouterTLS | None]]] = {
    "plain": ("HostSNI(`*`)", CATCH_ALL_PRIORITY + 1, None),
    "unnamed": ("HostSNI(`*`)", CATCH_ALL_PRIORITY + 1, {}),
    "unknown": ("HostSNIRegexp(`.`)", CATCH_ALL_PRIORITY + 2, {}),  # any name, but some name
}


@dataclass(frozen=True, slots=True)
class Doors:
    """Door → ``host:port`` at which it is answered, as the fronts reach it."""

    addresses: Mapping[Door, str]


def door_objects(fleet: Fleet, doors: Doors) -> TraefikObjects:
    """Return routers and services of the doors, at the entry point for MongoDB."""
    point = fleet.spec.entry_points.mongodb
    limit = f"{RESERVED}doors"
    objects = [TraefikObject("tcp.middlewares", limit, {"inFlightConn": {"amount": MOST_OF_ONE}})]
    for door in DOORS:
        rule, priority, tls = _RULES[door]
        name = f"{RESERVED}door-{door}"
        router: Router = {"entryPoints": [point], "rule": rule, "priority": priority, "service": name}
        router["middlewares"] = [limit]
        if tls is not None:
            router["tls"] = tls
        objects.append(TraefikObject("tcp.routers", name, router))
        servers = {"loadBalancer": {"servers": [{"address": doors.addresses[door]}]}}
        objects.append(TraefikObject("tcp.services", name, servers))
    return tuple(objects)
