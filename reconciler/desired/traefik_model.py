"""The part of Traefik's dynamic configuration that we write, named as Traefik names it.

A value is a plain dict of the shape that stands here and holds only strings, integers, booleans, lists and dicts, so
what a template made of it can be parsed back and compared with ``==``. (Typed dicts, not models: building, rendering
and comparing one takes 2 µs instead of 11, see ADR 0004. mypy checks the shapes where they are built; the tests check
every compiled value with pydantic against the same shapes, unknown keys refused.)

Source: https://doc.traefik.io/traefik/reference/routing-configuration/, version 3.7.
"""

from __future__ import annotations

from typing import (
    Any,
    Final,
    Literal,
    NamedTuple,
    NotRequired,  # pydantic reads typing's only from Python 3.12 on
)

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

Section = Literal[
    "http.routers",
    "http.services",
    "http.middlewares",
    "http.serversTransports",
    "tcp.routers",
    "tcp.services",
    "tcp.middlewares",
    "tcp.serversTransports",
    "tls.certificates",
    "tls.options",
    "tls.stores",
]
RESERVED: Final = "cloudlunacy__"
"""Head of the names of our own objects. No team's object can have it: in ``<team>_<name>`` neither part is empty."""
MARKER: Final = f"{RESERVED}generation-"
"""Head of the name of the HTTP service, used by no router, that says which generation a Traefik has loaded."""


def marker_name(generation: int, revision: str) -> str:
    """Name that service. The revision tells a generation from one of the same number in another life: numbers begin
    again where a data directory was deleted together with the fronts' files.
    """
    return f"{MARKER}{generation}-{revision[:12]}"


INTERNAL_ROOTS: Final = f"{RESERVED}roots"
"""Stands for the roots of the fleet's own authority, in ``rootCAs`` alone, until a front's file is composed."""
CLIENT_CHAIN: Final = f"{RESERVED}client-chain"
CLIENT_KEY: Final = f"{RESERVED}client-key"
"""Stand for the pair by which fronts prove themselves to agents, in ``certificates`` of transports alone, as above."""

_exact = with_config(ConfigDict(extra="forbid", strict=True))


@_exact
class RouterTLS(TypedDict, total=False):
    """Empty: Traefik ends TLS with the certificate that fits the name."""

    passthrough: bool


@_exact
class Router(TypedDict):
    entryPoints: list[str]
    rule: str
    priority: int
    service: str
    middlewares: NotRequired[list[str]]
    tls: NotRequired[RouterTLS]


@_exact
class Server(TypedDict):
    url: str
    weight: NotRequired[int]


@_exact
class Cookie(TypedDict):
    name: str
    secure: bool
    httpOnly: bool
    sameSite: str
    maxAge: NotRequired[int]


@_exact
class Sticky(TypedDict):
    cookie: Cookie


@_exact
class HealthCheck(TypedDict):
    path: str
    interval: str
    timeout: str
    followRedirects: bool
    status: NotRequired[int]
    headers: NotRequired[dict[str, str]]


@_exact
class LoadBalancer(TypedDict):
    servers: list[Server]
    serversTransport: NotRequired[str]
    passHostHeader: NotRequired[bool]
    sticky: NotRequired[Sticky]
    healthCheck: NotRequired[HealthCheck]


@_exact
class WeightedService(TypedDict):
    name: str
    weight: int


@_exact
class Weighted(TypedDict):
    services: list[WeightedService]
    sticky: NotRequired[Sticky]
    healthCheck: NotRequired[dict[str, str]]


@_exact
class Service(TypedDict):
    """One of the two keys."""

    loadBalancer: NotRequired[LoadBalancer]
    weighted: NotRequired[Weighted]


@_exact
class Timeouts(TypedDict):
    dialTimeout: str
    idleConnTimeout: str
    responseHeaderTimeout: NotRequired[str]


@_exact
class Certificate(TypedDict):
    """PEM inline, or paths on the front. Traefik takes both in the same keys."""

    certFile: str
    keyFile: str


@_exact
class ServersTransport(TypedDict):
    forwardingTimeouts: Timeouts
    serverName: NotRequired[str]
    rootCAs: NotRequired[list[str]]
    certificates: NotRequired[list[Certificate]]


@_exact
class TCPServer(TypedDict):
    address: str
    tls: NotRequired[bool]


@_exact
class TCPHealthCheck(TypedDict):
    interval: str
    timeout: str


@_exact
class TCPLoadBalancer(TypedDict):
    servers: list[TCPServer]
    serversTransport: NotRequired[str]
    healthCheck: NotRequired[TCPHealthCheck]


@_exact
class TCPService(TypedDict):
    """One of the two keys."""

    loadBalancer: NotRequired[TCPLoadBalancer]
    weighted: NotRequired[Weighted]


@_exact
class ClientTLS(TypedDict):
    serverName: NotRequired[str]
    rootCAs: NotRequired[list[str]]
    certificates: NotRequired[list[Certificate]]


@_exact
class TCPServersTransport(TypedDict):
    dialTimeout: str
    tls: NotRequired[ClientTLS]


@_exact
class TLSOptions(TypedDict):
    minVersion: str


@_exact
class TLSStore(TypedDict):
    defaultCertificate: Certificate


Middleware = dict[str, dict[str, Any]]
"""One key, the middleware's name, and its options. ``desired/middlewares.py`` builds each kind."""

ObjectValue = (
    Router
    | Service
    | Middleware
    | ServersTransport
    | TCPService
    | TCPServersTransport
    | Certificate
    | TLSOptions
    | TLSStore
)


class TraefikObject(NamedTuple):
    """One named entry of one section."""

    section: Section
    name: str
    value: ObjectValue


TraefikObjects = tuple[TraefikObject, ...]
