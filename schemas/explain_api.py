"""Who answers a request, and why (``GET /api/v1/explain?url=…``)."""

from __future__ import annotations

from typing import Final, Literal

from schemas.base import Model

EXPLAIN_PATH: Final = "/api/v1/explain"
LONGEST_URL: Final = 2048

Outcome = Literal["backend", "redirect", "refused", "not-found", "unavailable", "closed", "control-plane"]
"""backend: a backend answers · redirect: the front sends the client elsewhere · refused: a middleware says no ·
not-found: no router wants it · unavailable: a router wants it, and no backend gets requests · closed: the connection
ends without an answer · control-plane: the control plane itself answers."""


class ExplainedRouter(Model):
    """A router of Traefik, and the route that it was made of."""

    name: str
    rule: str
    priority: int
    team: str
    route: str
    file: str
    """Path in the state repo."""
    why: str = ""
    """Of one that did not win: why not."""


class ExplainedTLS(Model):
    """Which certificate a client is shown. ``certificate`` is empty where the front has none for the name."""

    mode: Literal["terminate", "passthrough"]
    server_name: str
    certificate: str = ""
    message: str = ""


class ExplainedMiddleware(Model):
    """One step between the front and the backend, in order."""

    kind: str
    """As it is written in the file, such as ``rateLimit``."""
    words: str
    effect: Literal["passes", "changes", "ends", "depends"] = "passes"
    """What becomes of this request there."""


class ExplainedBackend(Model):
    """One address that requests may go to. ``share`` is the part of the requests that it gets now, from 0 to 1."""

    agent: str
    address: str
    """As git declares it."""
    actual: str = ""
    """Where it really answers; empty where that is the same."""
    deployment: str = ""
    weight: int
    """Of the backend, as it is written in the file."""
    share: float
    state: str
    """``in service``, or why it gets none."""


class Explanation(Model):
    """What becomes of one request at the fronts."""

    url: str
    """As it was understood."""
    method: str
    entry_point: str
    outcome: Outcome
    status: int | None = None
    """What the front itself answers; None where the backend decides, or where there is no HTTP."""
    location: str = ""
    """Where a redirect leads."""
    message: str
    """The answer as a sentence."""
    hint: str = ""
    """What to do, where that is not what somebody wanted."""
    tls: ExplainedTLS | None = None
    router: ExplainedRouter | None = None
    beaten: tuple[ExplainedRouter, ...] = ()
    """Routers that fit the request too, and have a lower priority."""
    others: tuple[ExplainedRouter, ...] = ()
    """Routers of the same host that do not fit the request."""
    middlewares: tuple[ExplainedMiddleware, ...] = ()
    backends: tuple[ExplainedBackend, ...] = ()
    path_at_backend: str = ""
    """The path that the backend gets, where middlewares change it."""
    notes: tuple[str, ...] = ()
    """What else decides it."""
    retained: bool = False
    """The newest version of the route is quarantined; this is its last good one."""
