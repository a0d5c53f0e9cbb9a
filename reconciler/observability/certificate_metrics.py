"""What Prometheus scrapes about the certificates of fronts, counted at each scrape. Names are no labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, get_args

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from schemas.certificate_status import CertificateState, CertificateStatus

ISSUERS: Final = ("internal", "acme", "provided")
Statuses = Callable[[], Sequence[CertificateStatus]]


class CertificateMetrics(Collector):
    """``statuses`` is called at each scrape."""

    def __init__(self, registry: CollectorRegistry, statuses: Statuses) -> None:
        self._statuses = statuses
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """Name the families without counting anything."""
        yield from _families()

    def collect(self) -> Iterator[Metric]:
        """Count."""
        found, (states, ends, wrong) = self._statuses(), _families()
        counts = Counter((one.issuer, one.state) for one in found)
        for issuer in ISSUERS:
            for state in get_args(CertificateState):
                states.add_metric((issuer, state), counts[issuer, state])
            held = [one.not_after.timestamp() for one in found if one.issuer == issuer and one.not_after is not None]
            if held:
                ends.add_metric((issuer,), min(held))
        wrong.add_metric((), sum(any(not seen.matches for seen in one.probe) for one in found))
        yield from (states, ends, wrong)


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily("cloudlunacy_certificates", "Certificates of fronts.", labels=("issuer", "state")),
        GaugeMetricFamily(
            "cloudlunacy_certificates_first_not_after_seconds",
            "When the first of them ends, POSIX time.",
            labels=("issuer",),
        ),
        GaugeMetricFamily("cloudlunacy_certificates_not_served", "Those that some front does not show.", labels=()),
    )
