"""Request figures out of what a Traefik tells Prometheus. PURE.

Source: https://doc.traefik.io/traefik/reference/install-configuration/observability/metrics/ (router metrics). Only the
lines of routers of the file provider are parsed: a Traefik of 10,000 routes tells ten megabytes, most of them buckets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from reconciler.errors import Transient

REQUESTS: Final = "traefik_router_requests_total"
SECONDS: Final = "traefik_router_request_duration_seconds_sum"
ANSWERS: Final = "traefik_router_request_duration_seconds_count"
_WANTED: Final = tuple(f"{name}{{" for name in (REQUESTS, SECONDS, ANSWERS))
_ENABLED: Final = "traefik_"
_CLASSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx")
_PROVIDER: Final = "@file"


@dataclass(slots=True)
class Counts:
    """What was counted for one route since its Traefik started."""

    by_class: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    answers: float = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What one Traefik told. ``routes``: head of the names of a route's routers, ``<team>_<name>``."""

    at: float
    routes: Mapping[str, Counts]


class Rates(NamedTuple):
    """What a route was asked between two readings, a second."""

    by_class: dict[str, float]
    mean_seconds: float | None
    since: float
    until: float


def reading(text: str, at: float) -> Reading:
    """Read the text of a metrics endpoint. Raises Transient when it is none of Traefik's."""
    if _ENABLED not in text:
        raise Transient("Traefik tells no metrics there.", reason="NoMetrics")
    lines = "\n".join(line for line in text.splitlines() if line.startswith(_WANTED) and _PROVIDER in line)
    routes: dict[str, Counts] = {}
    try:
        for name, labels, value in _samples(lines):
            counts = routes.setdefault(_route_of(labels.get("router", "")), Counts())
            if name == REQUESTS:
                kind = f"{labels.get('code', '')[:1]}xx"
                if kind in _CLASSES:
                    counts.by_class[kind] = counts.by_class.get(kind, 0.0) + value
            elif name == SECONDS:
                counts.seconds += value
            else:
                counts.answers += value
    except (ValueError, KeyError, IndexError):
        raise Transient("Traefik's metrics cannot be read.", reason="BadMetrics") from None
    return Reading(at, routes)


def _samples(lines: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    for family in text_string_to_metric_families(f"{lines}\n"):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def _route_of(router: str) -> str:
    """Return the route of a router: neither team nor route has an underscore in its name."""
    return "_".join(router.removesuffix(_PROVIDER).split("_")[:2])


def rates(before: Reading, after: Reading, route: str) -> Rates | None:
    """Return what one front was asked for a route between two readings; None where that cannot be said.

    A counter that fell began again with its Traefik, so what it says now is all that came since.
    """
    passed = after.at - before.at
    if passed <= 0:
        return None
    new, old = after.routes.get(route, Counts()), before.routes.get(route, Counts())
    by_class = {}
    for kind, value in new.by_class.items():
        grown = _grown(old.by_class.get(kind, 0.0), value)
        if grown:
            by_class[kind] = grown / passed
    answers = _grown(old.answers, new.answers)
    seconds = _grown(old.seconds, new.seconds)
    return Rates(by_class, seconds / answers if answers else None, before.at, after.at)


def _grown(before: float, after: float) -> float:
    return after - before if after >= before else after


def added(found: Sequence[Rates]) -> Rates | None:
    """Add what several fronts were asked. The mean is that of all answers, as far as they were counted."""
    if not found:
        return None
    by_class: dict[str, float] = {}
    weighed, seconds = 0.0, 0.0
    for one in found:
        for kind, value in one.by_class.items():
            by_class[kind] = by_class.get(kind, 0.0) + value
        if one.mean_seconds is not None:
            weighed += sum(one.by_class.values())
            seconds += one.mean_seconds * sum(one.by_class.values())
    mean = seconds / weighed if weighed else None
    return Rates(by_class, mean, min(one.since for one in found), max(one.until for one in found))
