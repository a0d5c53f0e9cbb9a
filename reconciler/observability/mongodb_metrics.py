"""What Prometheus scrapes about databases. No name of an agent, host or client is a label."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter

from reconciler.observability.metrics import bounded

DOORS: Final = frozenset({"plain", "unnamed", "unknown"})
"""What was wrong: no TLS, no server name, a name that no route has."""


class MongoDBMetrics:
    """Call the methods; the labels stay bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._wrong = Counter(
            "cloudlunacy_mongodb_wrong_connections",
            "Connections for MongoDB that no route wanted, by what was wrong.",
            ("door",),
            registry=registry,
        )
        self._ended = Counter(
            "cloudlunacy_connections_ended",
            "Live connections that were ended because what led there is gone.",
            registry=registry,
        )
        self._remaining = Counter(
            "cloudlunacy_connections_remaining",
            "Times that live connections could not be ended.",
            registry=registry,
        )

    def wrong(self, door: str) -> None:
        self._wrong.labels(bounded(door, DOORS)).inc()

    def ended(self, count: int) -> None:
        self._ended.inc(count)

    def remain(self) -> None:
        self._remaining.inc()
