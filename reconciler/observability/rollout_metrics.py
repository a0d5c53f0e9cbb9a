"""What Prometheus scrapes about roll-outs. No name of a deployment is a label."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.status import RolloutState

STATES: Final[tuple[RolloutState, ...]] = get_args(RolloutState)


class RolloutMetrics(Collector):
    """``counts`` is asked at each scrape."""

    def __init__(self, registry: CollectorRegistry, counts: Callable[[], Mapping[RolloutState, int]]) -> None:
        self._counts = counts
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        yield _family()

    def collect(self) -> Iterator[Metric]:
        family, counts = _family(), self._counts()
        for state in STATES:
            if state != "Done":
                family.add_metric((state,), counts.get(state, 0))
        yield family


def _family() -> GaugeMetricFamily:
    return GaugeMetricFamily("cloudlunacy_rollouts", "Deployments on their way to a version.", labels=("state",))
