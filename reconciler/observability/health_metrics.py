"""What Prometheus is told of endpoints. Labels are bounded; which endpoint it is stands in the API and the timeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

VERDICTS: Final = ("healthy", "unhealthy", "starting", "stopped", "unknown", "unreachable", "drained")


class HealthMetrics:
    """``endpoints`` is asked for a count by verdict when somebody scrapes."""

    def __init__(self, registry: CollectorRegistry, endpoints: Callable[[], Mapping[str, int]]) -> None:
        registry.register(_Endpoints(endpoints))
        self._changes = Counter(
            "cloudlunacy_endpoint_changes",
            "Endpoints that went out of service, or came back.",
            ["to"],
            registry=registry,
        )

    def changed(self, *, is_out: bool) -> None:
        self._changes.labels("out" if is_out else "in").inc()


class _Endpoints(Collector):
    def __init__(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._counts = counts

    def describe(self) -> Iterator[Metric]:
        yield self._family()

    def collect(self) -> Iterator[Metric]:
        family, counts = self._family(), self._counts()
        for verdict in VERDICTS:
            family.add_metric([verdict], counts.get(verdict, 0))
        yield family

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(
            "cloudlunacy_endpoints", "Endpoints of agents of which something is known.", labels=["verdict"]
        )
