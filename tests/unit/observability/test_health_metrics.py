"""What Prometheus is told of endpoints."""

from __future__ import annotations

from reconciler.observability.health_metrics import VERDICTS, HealthMetrics
from reconciler.observability.metrics import Metrics


def test_endpoints_are_counted_by_verdict_when_somebody_asks() -> None:
    """A verdict that nobody has is zero; one that nobody knows is not shown."""
    metrics = Metrics()
    counts = {"healthy": 3, "unreachable": 1, "of a later version": 9}
    health = HealthMetrics(metrics.registry, lambda: counts)
    health.changed(is_out=True)
    text = metrics.render()[0].decode()
    assert 'cloudlunacy_endpoints{verdict="healthy"} 3.0' in text
    assert 'cloudlunacy_endpoints{verdict="stopped"} 0.0' in text
    assert "later version" not in text
    assert 'cloudlunacy_endpoint_changes_total{to="out"} 1.0' in text
    counts["healthy"] = 4
    assert 'cloudlunacy_endpoints{verdict="healthy"} 4.0' in metrics.render()[0].decode()
    assert set(VERDICTS) > {"healthy", "unhealthy", "starting", "stopped", "unknown", "unreachable"}


def test_generations_are_counted_by_their_cause() -> None:
    """What comes from a commit, from a certificate, from what was seen, and what was put back."""
    metrics = Metrics()
    metrics.published(1, "a" * 40)
    metrics.published(2, "a" * 40, "observation")
    metrics.published(3, "a" * 40, "no such cause")
    metrics.restored()
    text = metrics.render()[0].decode()
    for cause in ("commit", "observation", "other", "restored"):
        assert f'cloudlunacy_generations_total{{cause="{cause}"}} 1.0' in text
