"""What is published: every host and path, who answers there, and how much is asked (``GET /api/v1/traffic``)."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from schemas.base import Model
from schemas.explain_api import ExplainedBackend

TRAFFIC_PATH: Final = "/api/v1/traffic"
StatusClass = Literal["1xx", "2xx", "3xx", "4xx", "5xx"]
TrafficState = Literal["serving", "degraded", "unserved", "maintenance"]
"""serving: every backend that has a share gets requests · degraded: some do · unserved: none does · maintenance."""


class RequestFigures(Model):
    """How much a route is asked, over all fronts, between the last two readings of Traefik's metrics."""

    per_second: float
    by_class: dict[StatusClass, float]
    """Class of status → requests a second; those without requests are left out."""
    mean_seconds: float | None = None
    """That an answer took; None where there was none."""
    since: datetime
    until: datetime


class TrafficRow(Model):
    """One host of one route."""

    id: str
    """For ``after``."""
    host: str
    """``*`` for a TCP route without TLS, which has the whole entry point."""
    entry_point: str
    match: str = ""
    """Paths, methods and headers in words; empty: every request."""
    type: Literal["http", "tcp", "mongodb"]
    team: str
    route: str
    file: str
    tls: Literal["terminate", "passthrough", "none"]
    certificate: str = ""
    """The one that is shown; empty where there is none."""
    middlewares: tuple[str, ...] = ()
    """What each does, in order."""
    backends: tuple[ExplainedBackend, ...]
    state: TrafficState
    retained: bool = False
    """The newest version of the route is quarantined; this is its last good one."""
    figures: RequestFigures | None = None


class TrafficList(Model):
    rows: tuple[TrafficRow, ...]
    """In order of host."""
    total: int
    """That fit the filters."""
    next: str = ""
    """Give it as ``after`` for the next page; empty on the last one."""
    without_figures: str = ""
    """Why there are no figures; empty where there are."""
