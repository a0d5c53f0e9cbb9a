from __future__ import annotations

from prometheus_client import CollectorRegistry

from reconciler.observability.acme_metrics import AcmeMetrics


def test_outcomes_of_orders_are_bounded() -> None:
    """A reason that nobody listed counts as other."""
    registry = CollectorRegistry()
    metrics = AcmeMetrics(registry)
    metrics.under_way_of(lambda: 3)
    for outcome in ("issued", "AcmeTimeout", "whatever a server says"):
        metrics.ordered(outcome, 2.0)
    found = {
        outcome: registry.get_sample_value("cloudlunacy_acme_orders_total", {"outcome": outcome})
        for outcome in ("issued", "AcmeTimeout", "other")
    }
    assert found == {"issued": 1, "AcmeTimeout": 1, "other": 1}
    assert registry.get_sample_value("cloudlunacy_acme_orders_under_way") == 3
    assert registry.get_sample_value("cloudlunacy_acme_order_seconds_count") == 1
