"""How Traefik talks to backends: time-outs, TLS, and the name that a backend must prove.

With ``scheme: https`` every connection is checked. Where the route names no ``serverName``, the backend is the agent
itself: its certificate is of the fleet's own authority and carries ``<agent>.agents.<domain>``, another name for each
agent, so that each needs a transport of its own. The authority's roots are not known here: they change without any
object changing, and a route that keeps its last good version must follow. So :data:`INTERNAL_ROOTS` stands in their
place until a front's file is composed (:meth:`reconciler.desired.render.Renderer.compose`), and so do
:data:`CLIENT_CHAIN` and :data:`CLIENT_KEY` where the front is to prove itself to the agent.
"""

from __future__ import annotations

from typing import Final

from reconciler.desired.backends import Target
from reconciler.desired.compile_problem import CompileProblem
from reconciler.desired.traefik_model import (
    CLIENT_CHAIN,
    CLIENT_KEY,
    INTERNAL_ROOTS,
    RESERVED,
    Certificate,
    ClientTLS,
    ServersTransport,
    TCPServersTransport,
    TraefikObject,
)
from schemas.route import RouteSpec, Transport

DEFAULT_TRANSPORT: Final = f"{RESERVED}default"
"""Shared by all routes that leave ``transport`` as it is."""
_DEFAULTS: Final = Transport()
_CLIENT: Final[Certificate] = {"certFile": CLIENT_CHAIN, "keyFile": CLIENT_KEY}


def is_default(spec: RouteSpec) -> bool:
    """Say whether the route leaves ``transport`` as it is. Most do not name it, and need no comparison."""
    return "transport" not in spec.model_fields_set or spec.transport == _DEFAULTS


def proves_agent(spec: RouteSpec) -> bool:
    """Say whether each backend must prove that it is its agent."""
    return spec.transport.scheme == "https" and spec.transport.server_name is None


def by_agent(found: list[Target]) -> dict[str, list[Target]]:
    """Sort targets by agent, in their order."""
    groups: dict[str, list[Target]] = {}
    for target in found:
        groups.setdefault(target.agent, []).append(target)
    return groups


def agent_host(agent: str, domain: str) -> str:
    """Return the name in the certificate of an agent."""
    return f"{agent}.agents.{domain}"


def default_transports() -> list[TraefikObject]:
    """Return the objects of :data:`DEFAULT_TRANSPORT`."""
    return [http_transport(DEFAULT_TRANSPORT, _DEFAULTS), tcp_transport(DEFAULT_TRANSPORT, _DEFAULTS)]


def http_transport(name: str, transport: Transport, agent_name: str | None = None) -> TraefikObject:
    """``agent_name``: what an agent must prove, where the route names nothing."""
    value: ServersTransport = {
        "forwardingTimeouts": {
            "dialTimeout": transport.dial_timeout,
            "idleConnTimeout": transport.idle_connection_timeout,
        }
    }
    if transport.response_header_timeout is not None:
        value["forwardingTimeouts"]["responseHeaderTimeout"] = transport.response_header_timeout
    if agent_name is not None:
        value["serverName"] = agent_name
        value["rootCAs"] = [INTERNAL_ROOTS]
        if transport.client_certificate:
            value["certificates"] = [_CLIENT]
    elif transport.server_name is not None:
        value["serverName"] = transport.server_name
    return TraefikObject("http.serversTransports", name, value)


def tcp_transport(name: str, transport: Transport, agent_name: str | None = None) -> TraefikObject:
    """``agent_name``: as for :func:`http_transport`.

    Raises:
        CompileProblem: ``invalid-transport`` for a scheme of HTTP.
    """
    if transport.scheme == "h2c":
        field = ("spec", "transport", "scheme")
        raise CompileProblem("invalid-transport", "h2c is for type http", field, "For TLS to the backend write https.")
    value: TCPServersTransport = {"dialTimeout": transport.dial_timeout}
    if agent_name is not None:
        tls: ClientTLS = {"serverName": agent_name, "rootCAs": [INTERNAL_ROOTS]}
        if transport.client_certificate:
            tls["certificates"] = [_CLIENT]
        value["tls"] = tls
    elif transport.server_name is not None:
        value["tls"] = {"serverName": transport.server_name}
    return TraefikObject("tcp.serversTransports", name, value)
