"""A route: which requests reach which backends (``routes/<team>/<name>.yaml``)."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.base import EMPTY, Document, Model
from schemas.middleware import Middleware
from schemas.names import Duration, HeaderName, HeaderValue, Hostname, HostPattern, MatchValue, Name, Port, UrlPath

HttpMethod = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


TCP_MIDDLEWARES: Final = frozenset({"ip_allow_list", "connection_limit"})
"""What routes of types tcp and mongodb may list; the others are about requests."""


class PathMatch(Model):
    """``prefix`` matches the path and all below it, ``exact`` only itself."""

    prefix: UrlPath | None = None
    exact: UrlPath | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.prefix is None) == (self.exact is None):
            raise ValueError("write either prefix or exact")
        return self


class HeaderMatch(Model):
    """A request header that must have this value."""

    name: HeaderName
    value: MatchValue


class Backend(Model):
    """Where requests go: ``agent`` and ``port``, or a ``deployment`` of the team on whichever agents it runs."""

    agent: Name | None = None
    deployment: Name | None = None
    port: Port | None = None
    """Port of the agent. With deployment: its container port, where it has several."""
    port_name: Name | None = None
    """With deployment: the port by its name."""
    weight: Annotated[int, Field(ge=0, le=1000)] = 1
    """Share of requests relative to the other backends; 0 takes the backend out."""

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.agent is None) == (self.deployment is None):
            raise ValueError("write either agent or deployment")
        if self.agent is not None and (self.port is None or self.port_name is not None):
            raise ValueError("agent needs port")
        if self.deployment is not None and self.port is not None and self.port_name is not None:
            raise ValueError("write port or portName, not both")
        return self


class RouteTLS(Model):
    mode: Literal["terminate", "passthrough", "none"] = "terminate"
    """terminate: TLS ends at Traefik; passthrough: at the backend (tcp and mongodb); none: plain."""
    certificate: Name | None = None
    """Certificate to serve; without it the one whose names cover the host."""


class RouteHealthCheck(Model):
    """Traefik asks each backend; the ones that fail get no requests."""

    path: UrlPath = "/"
    """For type http."""
    interval: Duration | None = None
    """Without it the fleet's ``defaults.healthInterval``."""
    timeout: Duration = "3s"
    status: Annotated[int, Field(ge=100, le=599)] | None = None
    headers: Annotated[dict[HeaderName, HeaderValue], Field(max_length=16)] = EMPTY


class StickyCookie(Model):
    """The cookie that keeps a client at its backend."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    secure: bool = True
    http_only: bool = True
    same_site: Literal["none", "lax", "strict"] = "lax"
    max_age: Annotated[int, Field(ge=0, le=31_536_000)] = 0
    """Seconds; 0 until the browser closes."""


class Transport(Model):
    """How Traefik talks to the backends."""

    scheme: Literal["http", "https", "h2c"] = "http"
    server_name: Hostname | None = None
    """Name that the backend's certificate must carry."""
    client_certificate: bool = False
    """For scheme https without serverName: the front proves itself too, by a certificate of the fleet's authority for
    fronts.<domain>."""
    dial_timeout: Duration = "5s"
    response_header_timeout: Duration | None = None
    idle_connection_timeout: Duration = "90s"

    @model_validator(mode="after")
    def _proves_itself_to_the_fleet(self) -> Self:
        if self.client_certificate and (self.scheme != "https" or self.server_name is not None):
            raise ValueError("clientCertificate is for scheme https without serverName: for agents of the fleet")
        return self


class RouteSpec(Model):
    type: Literal["http", "tcp", "mongodb"]
    hostnames: Annotated[tuple[HostPattern, ...], Field(max_length=64)] = ()
    """http: hosts; default <name>.app.<domain>. tcp: server names (SNI). mongodb: none, they follow from the agent."""
    paths: Annotated[tuple[PathMatch, ...], Field(max_length=32)] = ()
    headers: Annotated[tuple[HeaderMatch, ...], Field(max_length=16)] = ()
    methods: Annotated[tuple[HttpMethod, ...], Field(max_length=7)] = ()
    entry_point: Name | None = None
    """For type tcp: one of the fleet's ``entryPoints.tcp``."""
    backends: Annotated[tuple[Backend, ...], Field(min_length=1, max_length=64)]
    health_check: RouteHealthCheck | None = None
    sticky: StickyCookie | None = None
    transport: Transport = Transport()
    pass_host_header: bool = True
    tls: RouteTLS = RouteTLS()
    middlewares: Annotated[tuple[Middleware, ...], Field(max_length=32)] = ()

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        {"http": _check_http, "tcp": _check_tcp, "mongodb": _check_mongodb}[self.type](self)
        return self


def _check_http(spec: RouteSpec) -> None:
    if spec.tls.mode == "passthrough":
        raise ValueError("tls.mode passthrough is for types tcp and mongodb")
    if spec.entry_point is not None:
        raise ValueError("entryPoint is for type tcp")
    if any(middleware.connection_limit for middleware in spec.middlewares):
        raise ValueError("middlewares: connectionLimit is for types tcp and mongodb; for requests there is rateLimit")


def _refuse_http_fields(spec: RouteSpec) -> None:
    for field in ("paths", "headers", "methods", "sticky"):
        if getattr(spec, field):
            raise ValueError(f"{field} is for type http, this is type {spec.type}")
    if spec.health_check is not None and "path" in spec.health_check.model_fields_set:
        raise ValueError(f"healthCheck.path is for type http, this is type {spec.type}")
    for middleware in spec.middlewares:
        if middleware.name not in TCP_MIDDLEWARES:
            raise ValueError(f"middlewares: a route of type {spec.type} can have ipAllowList and connectionLimit")
        if middleware.ip_allow_list is not None and middleware.ip_allow_list.forwarded_depth:
            raise ValueError("middlewares: ipAllowList.forwardedDepth is for type http")


def _check_tcp(spec: RouteSpec) -> None:
    _refuse_http_fields(spec)
    if spec.entry_point is None:
        raise ValueError("type tcp needs entryPoint")
    if spec.tls.mode == "none" and spec.hostnames:
        raise ValueError("hostnames need TLS (SNI); with tls.mode none the route owns the whole entry point")
    if spec.tls.mode != "none" and not spec.hostnames:
        raise ValueError("type tcp with TLS needs hostnames (SNI)")


def _check_mongodb(spec: RouteSpec) -> None:
    _refuse_http_fields(spec)
    if spec.hostnames:
        raise ValueError("a route of type mongodb answers at <agent>.mongodb.<domain>; leave hostnames out")
    if spec.tls.mode == "none":
        raise ValueError("a route of type mongodb is always TLS")
    if spec.entry_point is not None:
        raise ValueError("entryPoint is for type tcp")


class Route(Document):
    kind: Literal["Route"]
    spec: RouteSpec
