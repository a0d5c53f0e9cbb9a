"""What Prometheus scrapes about orders at ACME servers. No name of a certificate, host or server is a label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from reconciler.observability.metrics import bounded

OUTCOMES: Final = frozenset(
    {
        "issued",
        *("AcmeAnswerMalformed", "AcmeBackOff", "AcmeBudget", "AcmeBusy", "AcmeChallengeFailed", "AcmeUnderWay"),
        *("AcmeChallengeUnavailable", "AcmeDirectoryMissing", "AcmeDnsNotSetUp", "AcmeNonceRefused", "AcmeOrderLost"),
        *("AcmeRateLimited", "AcmeRefused", "AcmeServerError", "AcmeTermsNotAgreed", "AcmeTimeout", "AcmeUnreachable"),
        *("AcmeUntrusted", "ChallengeNotServed", "DnsAnswerMalformed", "DnsKeyRefused", "DnsNotVisible"),
        *("DnsUnreachable", "DnsUpdateFailed", "DnsUpdateRefused", "DnsZoneMissing"),
        *("HookFailed", "HookTimeout", "Broken", "InternalError"),
    }
)
"""``issued``, or the reason why not."""
SECONDS: Final = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class AcmeMetrics:
    """Call the methods; the labels stay bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._orders = Counter(
            "cloudlunacy_acme_orders", "Orders at ACME servers by outcome.", ("outcome",), registry=registry
        )
        self._seconds = Histogram(
            "cloudlunacy_acme_order_seconds", "Time that an order took.", registry=registry, buckets=SECONDS
        )
        self._under_way = Gauge(
            "cloudlunacy_acme_orders_under_way", "Orders at ACME servers under way.", registry=registry
        )

    def ordered(self, outcome: str, seconds: float) -> None:
        """Count an order that has ended."""
        self._orders.labels(bounded(outcome, OUTCOMES)).inc()
        if outcome == "issued":
            self._seconds.observe(seconds)

    def under_way_of(self, count: Callable[[], int]) -> None:
        """Read at each scrape how many are under way."""
        self._under_way.set_function(count)
