from __future__ import annotations

import datetime as dt

from prometheus_client import CollectorRegistry

from reconciler.observability.certificate_metrics import CertificateMetrics
from schemas.certificate_status import CertificateStatus, ServedLeaf

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
SHOWN = ServedLeaf(front="front-1", name="a.test", checked_at=NOW, fingerprint="0", matches=True)
ALL = (
    CertificateStatus(name="a", issuer="acme", dns_names=("a.test",), state="Good", not_after=NOW, probe=(SHOWN,)),
    CertificateStatus(
        name="b",
        issuer="acme",
        dns_names=("b.test",),
        state="Due",
        not_after=NOW + dt.timedelta(days=1),
        probe=(SHOWN.model_copy(update={"matches": False}),),
    ),
    CertificateStatus(name="c", issuer="internal", dns_names=("c.test",), state="Pending"),
)


def test_certificates_are_counted_by_issuer_and_state() -> None:
    """With the first end of each issuer, and how many some front does not show; no name is a label."""
    registry = CollectorRegistry()
    CertificateMetrics(registry, lambda: ALL)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"cloudlunacy_{name}", labels)

    assert value("certificates", issuer="acme", state="Good") == 1
    assert value("certificates", issuer="internal", state="Pending") == 1
    assert value("certificates", issuer="provided", state="Good") == 0
    assert value("certificates_first_not_after_seconds", issuer="acme") == NOW.timestamp()
    assert value("certificates_first_not_after_seconds", issuer="internal") is None
    assert value("certificates_not_served") == 1
