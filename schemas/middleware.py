"""The middlewares that a route may list. Each entry of the list has one key, the middleware's name.

The fields are those of Traefik's middlewares of the same name, as far as a team may decide them; everything that could
reach beyond the team (addresses, expressions, regular expressions) is built from checked fields instead of taken over.
Source: https://doc.traefik.io/traefik/reference/routing-configuration/http/middlewares/overview/
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.base import EMPTY, Model
from schemas.names import ByteSize, Duration, HeaderName, HeaderValue, Hostname, Name, Network, Port, UrlPath
from schemas.secret import SecretReference

ContentType = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.+-]+/[a-z0-9.+*-]+$", max_length=128)]
HeaderMap = Annotated[dict[HeaderName, HeaderValue], Field(max_length=64)]


class Headers(Model):
    """Set request or response headers; an empty value removes one."""

    request: HeaderMap = EMPTY
    response: HeaderMap = EMPTY

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.request and not self.response:
            raise ValueError("headers needs request or response")
        return self


class RateLimit(Model):
    """At most ``average`` requests a ``period`` and source, with bursts up to ``burst``."""

    average: Annotated[int, Field(ge=1, le=1_000_000)]
    burst: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    period: Duration = "1s"
    by_header: HeaderName | None = None
    """Count by this request header instead of by client address."""


class BasicAuth(Model):
    """Ask for user and password. The secret's value is an htpasswd file with bcrypt, SHA1 or MD5 hashes."""

    secret: SecretReference
    realm: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9 ._-]+$", max_length=64)] = "restricted"
    remove_header: bool = True
    """Keep the Authorization header from the backend."""


class IPAllowList(Model):
    """Let in only clients of these networks."""

    ranges: Annotated[tuple[Network, ...], Field(min_length=1, max_length=256)]
    forwarded_depth: Annotated[int, Field(ge=0, le=16)] = 0
    """0: the connection's address; n: the n-th address from the right of X-Forwarded-For."""


class ConnectionLimit(Model):
    """At most ``amount`` connections at a time from one client address to one host; for types tcp and mongodb."""

    amount: Annotated[int, Field(ge=1, le=1_000_000)]


class Compress(Model):
    min_response_body: ByteSize | None = None
    excluded_content_types: Annotated[tuple[ContentType, ...], Field(max_length=64)] = ()


class Redirect(Model):
    """Answer with a redirect to another scheme, port or host; path and query stay as they are."""

    scheme: Literal["http", "https"] | None = None
    port: Port | None = None
    host: Hostname | None = None
    permanent: bool = False

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.scheme is None and self.host is None:
            raise ValueError("redirect needs scheme or host")
        return self


class Retry(Model):
    attempts: Annotated[int, Field(ge=1, le=10)]
    initial_interval: Duration = "100ms"


class CircuitBreaker(Model):
    """Stop sending to a failing service. Opens when any of the given ratios or the latency is exceeded."""

    network_error_ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    server_error_ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of responses with a 5xx status."""
    median_latency: Duration | None = None
    check_period: Duration = "100ms"
    fallback_duration: Duration = "10s"
    recovery_duration: Duration = "10s"

    @model_validator(mode="after")
    def _some_trigger(self) -> Self:
        if self.network_error_ratio is None and self.server_error_ratio is None and self.median_latency is None:
            raise ValueError("circuitBreaker needs networkErrorRatio, serverErrorRatio or medianLatency")
        return self


class ServiceAddress(Model):
    """Something that answers HTTP on an agent of the team: ``agent`` and ``port``, or ``deployment``."""

    agent: Name | None = None
    deployment: Name | None = None
    port: Port | None = None
    port_name: Name | None = None
    path: UrlPath = "/"

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.agent is None) == (self.deployment is None):
            raise ValueError("write either agent or deployment")
        if self.agent is not None and (self.port is None or self.port_name is not None):
            raise ValueError("agent needs port")
        if self.deployment is not None and self.port is not None and self.port_name is not None:
            raise ValueError("write port or portName, not both")
        return self


class ForwardAuth(Model):
    """Ask another service of the team first; it lets the request through with a 2xx."""

    address: ServiceAddress
    response_headers: Annotated[tuple[HeaderName, ...], Field(max_length=32)] = ()
    """Headers copied from its answer to the request."""


class Maintenance(Model):
    """Answer 503 in place of the service, with a page of the team's where ``page`` is given."""

    page: ServiceAddress | None = None


class StripPrefix(Model):
    prefixes: Annotated[tuple[UrlPath, ...], Field(min_length=1, max_length=16)]


class AddPrefix(Model):
    prefix: UrlPath


class Middleware(Model):
    """One entry of the list: exactly one of the keys."""

    headers: Headers | None = None
    rate_limit: RateLimit | None = None
    basic_auth: BasicAuth | None = None
    ip_allow_list: IPAllowList | None = None
    connection_limit: ConnectionLimit | None = None
    compress: Compress | None = None
    redirect: Redirect | None = None
    retry: Retry | None = None
    circuit_breaker: CircuitBreaker | None = None
    forward_auth: ForwardAuth | None = None
    maintenance: Maintenance | None = None
    strip_prefix: StripPrefix | None = None
    add_prefix: AddPrefix | None = None

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        named = self.model_fields_set
        if len(named) != 1 or getattr(self, *named) is None:
            raise ValueError("a middleware has exactly one key; write a list entry for each")
        return self

    @property
    def name(self) -> str:
        """The key that is set, as a Python name, such as ``rate_limit``."""
        return next(iter(self.model_fields_set))
