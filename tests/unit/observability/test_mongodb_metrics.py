"""What is counted about databases, and that labels stay few."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from reconciler.desired.doors import DOORS
from reconciler.observability.mongodb_metrics import DOORS as COUNTED
from reconciler.observability.mongodb_metrics import MongoDBMetrics


def test_each_door_is_counted_by_itself() -> None:
    """And whatever is none of them together."""
    registry = CollectorRegistry()
    metrics = MongoDBMetrics(registry)
    for door in (*DOORS, "plain", "another"):
        metrics.wrong(door)
    counts = {
        door: registry.get_sample_value("cloudlunacy_mongodb_wrong_connections_total", {"door": door})
        for door in (*DOORS, "other")
    }
    assert counts == {"plain": 2, "unnamed": 1, "unknown": 1, "other": 1}
    assert set(DOORS) == COUNTED


def test_what_was_ended_and_what_was_not_is_counted() -> None:
    """Connections there, times here: how many stay nobody knows."""
    registry = CollectorRegistry()
    metrics = MongoDBMetrics(registry)
    metrics.ended(3)
    metrics.remain()
    assert registry.get_sample_value("cloudlunacy_connections_ended_total") == 3
    assert registry.get_sample_value("cloudlunacy_connections_remaining_total") == 1
