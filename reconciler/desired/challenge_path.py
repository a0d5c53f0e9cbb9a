"""The path at which ACME servers look for answers (RFC 8555, 8.3): fronts lead it to the control plane, for every host.

The routers have a priority above every route's (:mod:`reconciler.desired.matching`), on the entry point for plain HTTP
and on the one for HTTPS: a front that sends everything from one to the other sends the server there too. They are there
only while some certificate is proven by http-01. No route may name the path, whether they are there or not: one that
could would answer for the control plane until the first certificate is wanted, and fail without a word afterwards.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from reconciler.desired.traefik_model import RESERVED, Router, TraefikObject, TraefikObjects
from reconciler.desired.transports import DEFAULT_TRANSPORT
from schemas.fleet import Fleet
from schemas.route import PathMatch

CHALLENGE_PATH: Final = "/.well-known/acme-challenge/"
PRIORITY: Final = 2_000_000_000
"""Above all that routes can have, and below what Traefik keeps for itself on 32-bit machines (2^31 - 1001)."""
_NAME: Final = f"{RESERVED}acme-challenge"


def challenge_routes(fleet: Fleet, url: str | None) -> TraefikObjects:
    """Return the routers and their service. ``url``: where the control plane answers; None where nobody looks."""
    if url is None:
        return ()
    points = fleet.spec.entry_points
    plain: Router = {
        "entryPoints": [points.http],
        "rule": f"PathPrefix(`{CHALLENGE_PATH}`)",
        "priority": PRIORITY,
        "service": _NAME,
    }
    tls: Router = {**plain, "entryPoints": [points.https], "tls": {}}
    return (
        TraefikObject("http.routers", _NAME, plain),
        TraefikObject("http.routers", f"{_NAME}-tls", tls),
        TraefikObject(
            "http.services",
            _NAME,
            {"loadBalancer": {"servers": [{"url": url}], "serversTransport": DEFAULT_TRANSPORT}},
        ),
    )


def is_reserved(path: PathMatch) -> bool:
    """Say whether a route names the path, or something below it, in plain or percent-encoded."""
    written = unquote(path.exact if path.exact is not None else path.prefix or "/")
    return f"{written.rstrip('/')}/".startswith(CHALLENGE_PATH)
