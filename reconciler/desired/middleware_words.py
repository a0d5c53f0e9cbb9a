"""What a route's middlewares do, in words, and what becomes of one request at each of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from reconciler.desired.asking import Question
from reconciler.desired.middlewares import KEYS
from schemas import middleware as wanted
from schemas.explain_api import ExplainedMiddleware

Effect = Literal["passes", "changes", "ends", "depends"]
_URL: Final = re.compile(r"^(https?)://([^/:]+)(:\d+)?(.*)$")
_MOST: Final = 5
"""Names or networks that are listed."""


@dataclass(frozen=True, slots=True)
class Passage:
    """How far a request came. ``status``: what a middleware answered; None while nothing did."""

    path: str
    steps: tuple[ExplainedMiddleware, ...] = ()
    status: int | None = None
    location: str = ""
    is_in_maintenance: bool = False


def words_of(middleware: wanted.Middleware) -> str:
    """Say what a middleware does, in a sentence without its end."""
    return _WORDS[middleware.name](getattr(middleware, middleware.name))


def passage(middlewares: tuple[wanted.Middleware, ...], asked: Question) -> Passage:
    """Lead a request through middlewares, in order, until one answers."""
    found = Passage(asked.path)
    for one in middlewares:
        found = _through(found, KEYS[one.name][0], words_of(one), one, asked)
        if found.status is not None:
            break
    return found


def _step(found: Passage, kind: str, words: str, effect: Effect) -> Passage:
    return replace(found, steps=(*found.steps, ExplainedMiddleware(kind=kind, words=words, effect=effect)))


def _through(found: Passage, kind: str, words: str, one: wanted.Middleware, asked: Question) -> Passage:
    if one.redirect is not None:
        status, location = redirected(one.redirect, asked, found.path)
        if status is None:
            return _step(found, kind, f"{words}; this request is there already", "passes")
        return replace(_step(found, kind, words, "ends"), status=status, location=location)
    if one.basic_auth is not None and "authorization" not in asked.headers:
        return replace(_step(found, kind, f"{words}; this request has none", "ends"), status=401)
    if one.maintenance is not None:
        return replace(_step(found, kind, words, "changes"), is_in_maintenance=True)
    if one.strip_prefix is not None or one.add_prefix is not None:
        path = _rewritten(one, found.path)
        step = _step(found, kind, f"{words}: {path or '/'}", "changes" if path != found.path else "passes")
        return replace(step, path=path)
    return _step(found, kind, words, _EFFECTS.get(one.name, "passes"))


def _rewritten(one: wanted.Middleware, path: str) -> str:
    if one.strip_prefix is not None:
        prefix = next((prefix for prefix in one.strip_prefix.prefixes if path.startswith(prefix)), None)
        if prefix is None:
            return path
        rest = path.removeprefix(prefix)
        return rest if rest.startswith("/") or not rest else f"/{rest}"
    assert one.add_prefix is not None
    return f"{one.add_prefix.prefix.rstrip('/')}{path}"


def redirected(options: wanted.Redirect, asked: Question, path: str) -> tuple[int | None, str]:
    """Return status and Location of a redirect; None where the request is already where it leads."""
    match = _URL.match(replace(asked, path=path).url)
    assert match is not None
    scheme, host, port, rest = match[1], match[2], match[3] or "", match[4]
    wanted_port = f":{options.port}" if options.port is not None else ""
    if options.host is None:
        target = options.scheme or "https"
        usual = {"http": ":80", "https": ":443"}[target]
        location = f"{target}://{host}{'' if wanted_port == usual else wanted_port}{rest}"
    else:
        location = f"{options.scheme or scheme}://{options.host}{wanted_port}{rest}"
    if location == f"{scheme}://{host}{port}{rest}":
        return None, ""
    if asked.method == "GET":
        return (301 if options.permanent else 302), location
    return (308 if options.permanent else 307), location


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return f"{', '.join(names[:_MOST])}{more}"


def _headers(options: wanted.Headers) -> str:
    parts = []
    for what, headers in (("request", options.request), ("response", options.response)):
        if headers:
            parts.append(f"{what} header{'s' if len(headers) > 1 else ''} {_listed(tuple(sorted(headers)))}")
    return f"sets or removes {' and '.join(parts)}"


def _rate_limit(options: wanted.RateLimit) -> str:
    by = f"value of {options.by_header}" if options.by_header else "client address"
    burst = f", {options.burst} at once" if options.burst > 1 else ""
    return f"lets {options.average} requests in {options.period} through for each {by}{burst}; more get 429"


def _allow_list(options: wanted.IPAllowList) -> str:
    return f"lets only clients of {_listed(options.ranges)} through; others are refused"


def _redirect(options: wanted.Redirect) -> str:
    port = f":{options.port}" if options.port is not None else ""
    where = f"{options.host}{port}" if options.host else f"the same host{port}"
    scheme = f" over {options.scheme}" if options.scheme else ""
    return f"sends clients to {where}{scheme}{' for good' if options.permanent else ''}"


def _breaker(options: wanted.CircuitBreaker) -> str:
    when = []
    if options.network_error_ratio is not None:
        when.append(f"{options.network_error_ratio:.0%} of requests cannot be sent")
    if options.server_error_ratio is not None:
        when.append(f"{options.server_error_ratio:.0%} of answers are 5xx")
    if options.median_latency is not None:
        when.append(f"half of the answers take longer than {options.median_latency}")
    return f"answers 503 for {options.fallback_duration} when {' or '.join(when)}"


def _service(address: wanted.ServiceAddress) -> str:
    return f"{address.agent}:{address.port}" if address.agent else f"deployment {address.deployment}"


_WORDS: Final[Mapping[str, Callable[[Any], str]]] = {
    "headers": _headers,
    "rate_limit": _rate_limit,
    "basic_auth": lambda one: f"asks for user and password (secret {one.secret.name}, key {one.secret.key})",
    "ip_allow_list": _allow_list,
    "connection_limit": lambda one: f"allows {one.amount} connections at a time from one client",
    "compress": lambda _: "compresses answers for clients that take it",
    "redirect": _redirect,
    "retry": lambda one: f"tries a request that could not be sent up to {one.attempts} times",
    "circuit_breaker": _breaker,
    "forward_auth": lambda one: f"asks {_service(one.address)}{one.address.path} first, which may refuse",
    "maintenance": lambda one: (
        f"answers 503 in place of the backends{f', with the page of {_service(one.page)}' if one.page else ''}"
    ),
    "strip_prefix": lambda one: f"takes {_listed(one.prefixes)} off the path",
    "add_prefix": lambda one: f"puts {one.prefix} before the path",
}
_EFFECTS: Final[Mapping[str, Effect]] = {
    "headers": "changes",
    "rate_limit": "depends",
    "basic_auth": "depends",
    "ip_allow_list": "depends",
    "circuit_breaker": "depends",
    "forward_auth": "depends",
    "connection_limit": "depends",
    "compress": "changes",
}
"""What is neither here nor seen in :func:`passage` lets every request pass."""
