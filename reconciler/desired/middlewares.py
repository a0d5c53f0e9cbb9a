"""From the middlewares of a route to Traefik's: one function each, in the order of ``schemas/middleware.py``.

Expressions, regular expressions and URLs are built here from checked fields; none is taken over from a document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from reconciler.desired.backends import endpoints
from reconciler.desired.compile_problem import CompileProblem
from reconciler.desired.lookup import Lookup, SecretUnavailable
from reconciler.desired.traefik_model import TraefikObject
from schemas import middleware as wanted
from schemas.names import seconds, size_in_bytes

Field = tuple[str | int, ...]
_Build = Callable[[Any, "Place"], dict[str, dict[str, Any]]]
NOWHERE: Final = "127.0.0.1:1"
"""Refuses every connection (port 1, tcpmux). A middleware that must have an address fails closed there."""
_FORWARD_AUTH_LIMIT: Final = 1_048_576
_MOST_USERS: Final = 1000
_USER: Final = re.compile(
    r"""^[^:\s]{1,255}:(?:
    \$2[aby]\$(?:0[4-9]|1[0-4])\$[./A-Za-z0-9]{53}           # bcrypt; a cost above 14 takes seconds for each request
    | \$apr1\$[./A-Za-z0-9]{1,8}\$[./A-Za-z0-9]{22}          # Apache's MD5
    | \{SHA\}[A-Za-z0-9+/]{27}=                              # SHA1
    )$""",
    re.VERBOSE,
)


class Place(NamedTuple):
    """Where a middleware stands: in which route, at which position, and what it may ask."""

    team: str
    name: str
    """Of the Traefik object, such as ``shop_web_rate-limit-1``."""
    field: Field
    lookup: Lookup


class Chain(NamedTuple):
    """A route's middlewares: their objects, their names in order, and the service that stands in for the route's."""

    objects: list[TraefikObject]
    names: list[str]
    service: str | None


def compile_middlewares(team: str, route: str, middlewares: Sequence[wanted.Middleware], lookup: Lookup) -> Chain:
    """Turn the list into objects named ``<route>_<kind>-<position>``; ``route`` is ``<team>_<name>``.

    Raises:
        CompileProblem: ``unknown-secret``, ``invalid-htpasswd`` and what :func:`endpoints` raises.
    """
    objects: list[TraefikObject] = []
    names: list[str] = []
    service: str | None = None
    for index, middleware in enumerate(middlewares):
        kind = middleware.name
        options = getattr(middleware, kind)
        key, word = KEYS[kind]
        name = f"{route}_{word}-{index + 1}"
        place = Place(team, name, ("spec", "middlewares", index, key), lookup)
        if kind == "maintenance":
            objects += _maintenance(options, place)
            service = name
            if options.page is None:
                continue
        else:
            objects.append(TraefikObject("http.middlewares", name, _BUILD[kind](options, place)))
        names.append(name)
    return Chain(objects, names, service)


def compile_tcp_middlewares(
    route: str, middlewares: Sequence[wanted.Middleware]
) -> tuple[list[TraefikObject], list[str]]:
    """Turn the list of a route of type tcp or mongodb into objects, named as by :func:`compile_middlewares`."""
    objects = []
    for number, middleware in enumerate(middlewares, start=1):
        name = f"{route}_{KEYS[middleware.name][1]}-{number}"
        if middleware.connection_limit is not None:
            value: dict[str, dict[str, Any]] = {"inFlightConn": {"amount": middleware.connection_limit.amount}}
        else:
            assert middleware.ip_allow_list is not None
            value = {"ipAllowList": {"sourceRange": list(middleware.ip_allow_list.ranges)}}
        objects.append(TraefikObject("tcp.middlewares", name, value))
    return objects, [one.name for one in objects]


def _headers(options: wanted.Headers, _: Place) -> dict[str, dict[str, Any]]:
    value: dict[str, Any] = {}
    if options.request:
        value["customRequestHeaders"] = dict(options.request)
    if options.response:
        value["customResponseHeaders"] = dict(options.response)
    return {"headers": value}


def _rate_limit(options: wanted.RateLimit, _: Place) -> dict[str, dict[str, Any]]:
    value: dict[str, Any] = {"average": options.average, "burst": options.burst, "period": options.period}
    if options.by_header is not None:
        value["sourceCriterion"] = {"requestHeaderName": options.by_header}
    return {"rateLimit": value}


def _basic_auth(options: wanted.BasicAuth, place: Place) -> dict[str, dict[str, Any]]:
    field = (*place.field, "secret")
    try:
        text = place.lookup.open_secret(place.team, options.secret.name, options.secret.key)
    except SecretUnavailable as error:
        raise CompileProblem("unknown-secret", str(error), field) from None
    users = {"users": _users(text, field), "realm": options.realm, "removeHeader": options.remove_header}
    return {"basicAuth": users}


def _users(text: str, field: Field) -> list[str]:
    """Check an htpasswd file line by line. Messages name the line, never its content."""
    users = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if not _USER.match(line):
            raise CompileProblem(
                "invalid-htpasswd",
                f"line {number} of the secret is not user:hash with a bcrypt (cost 4 to 14), apr1 or SHA hash",
                field,
                "Make one with: htpasswd -nB <user>",
            )
        users.append(line)
    if not users or len(users) > _MOST_USERS:
        raise CompileProblem("invalid-htpasswd", f"the secret has {len(users)} users; 1 to {_MOST_USERS} work", field)
    return users


def _ip_allow_list(options: wanted.IPAllowList, _: Place) -> dict[str, dict[str, Any]]:
    value: dict[str, Any] = {"sourceRange": list(options.ranges)}
    if options.forwarded_depth:
        value["ipStrategy"] = {"depth": options.forwarded_depth}
    return {"ipAllowList": value}


def _compress(options: wanted.Compress, _: Place) -> dict[str, dict[str, Any]]:
    value: dict[str, Any] = {}
    if options.min_response_body is not None:
        value["minResponseBodyBytes"] = size_in_bytes(options.min_response_body)
    if options.excluded_content_types:
        value["excludedContentTypes"] = list(options.excluded_content_types)
    return {"compress": value}


def _redirect(options: wanted.Redirect, _: Place) -> dict[str, dict[str, Any]]:
    if options.host is None:
        value: dict[str, Any] = {"scheme": options.scheme or "https", "permanent": options.permanent}
        if options.port is not None:
            value["port"] = str(options.port)
        return {"redirectScheme": value}
    port = f":{options.port}" if options.port is not None else ""
    # host and port are checked fields of [a-z0-9.:-], which mean themselves in a replacement
    replacement = f"{options.scheme or '$1'}://{options.host}{port}/$2"
    return {
        "redirectRegex": {
            "regex": "^(https?)://[^/]+/(.*)$",
            "replacement": replacement,
            "permanent": options.permanent,
        }
    }


def _retry(options: wanted.Retry, _: Place) -> dict[str, dict[str, Any]]:
    return {"retry": {"attempts": options.attempts, "initialInterval": options.initial_interval}}


def _circuit_breaker(options: wanted.CircuitBreaker, _: Place) -> dict[str, dict[str, Any]]:
    triggers = []
    if options.network_error_ratio is not None:
        triggers.append(f"NetworkErrorRatio() > {_decimal(options.network_error_ratio)}")
    if options.server_error_ratio is not None:
        triggers.append(f"ResponseCodeRatio(500, 600, 0, 600) > {_decimal(options.server_error_ratio)}")
    if options.median_latency is not None:
        triggers.append(f"LatencyAtQuantileMS(50.0) > {round(seconds(options.median_latency) * 1000)}")
    return {
        "circuitBreaker": {
            "expression": " || ".join(triggers),
            "checkPeriod": options.check_period,
            "fallbackDuration": options.fallback_duration,
            "recoveryDuration": options.recovery_duration,
        }
    }


def _decimal(ratio: float) -> str:
    """A ratio without exponent, which Traefik's expression language does not read."""
    return f"{max(ratio, 1e-6):.6f}"


def _forward_auth(options: wanted.ForwardAuth, place: Place) -> dict[str, dict[str, Any]]:
    found = endpoints(place.team, options.address, place.lookup, (*place.field, "address"))
    address = next((endpoint.address for endpoint in found if endpoint.in_service), NOWHERE)
    value: dict[str, Any] = {
        "address": f"http://{address}{options.address.path}",
        "maxResponseBodySize": _FORWARD_AUTH_LIMIT,
    }
    if options.response_headers:
        value["authResponseHeaders"] = list(options.response_headers)
    return {"forwardAuth": value}


def _maintenance(options: wanted.Maintenance, place: Place) -> list[TraefikObject]:
    """A service without servers, which Traefik answers with 503, and the page in place of that answer's body."""
    objects = [TraefikObject("http.services", place.name, {"loadBalancer": {"servers": []}})]
    if options.page is None:
        return objects
    found = endpoints(place.team, options.page, place.lookup, (*place.field, "page"))
    page = f"{place.name}_page"
    servers = [f"http://{endpoint.address}" for endpoint in found if endpoint.in_service]
    objects.append(
        TraefikObject("http.services", page, {"loadBalancer": {"servers": [{"url": url} for url in servers]}})
    )
    errors = {"status": ["503"], "service": page, "query": options.page.path}
    objects.append(TraefikObject("http.middlewares", place.name, {"errors": errors}))
    return objects


def _strip_prefix(options: wanted.StripPrefix, _: Place) -> dict[str, dict[str, Any]]:
    return {"stripPrefix": {"prefixes": list(options.prefixes)}}


def _add_prefix(options: wanted.AddPrefix, _: Place) -> dict[str, dict[str, Any]]:
    return {"addPrefix": {"prefix": options.prefix}}


_BUILD: Final[dict[str, _Build]] = {
    "headers": _headers,
    "rate_limit": _rate_limit,
    "basic_auth": _basic_auth,
    "ip_allow_list": _ip_allow_list,
    "compress": _compress,
    "redirect": _redirect,
    "retry": _retry,
    "circuit_breaker": _circuit_breaker,
    "forward_auth": _forward_auth,
    "strip_prefix": _strip_prefix,
    "add_prefix": _add_prefix,
}
KEYS: Final = {
    name: (info.alias or name, name.replace("_", "-")) for name, info in wanted.Middleware.model_fields.items()
}
"""Kind → its key in a document, its word in a Traefik object's name."""
