"""Unit tests of agent.applier."""

from __future__ import annotations

from agent.applier import not_run
from schemas.session import UNSUPPORTED, ItemResult


def result(name: str, reason: str, message: str = "") -> ItemResult:
    return ItemResult(id=f"Deployment/shop/{name}", state="Applied", reason=reason, message=message)


def test_everything_that_runs_nowhere_is_named() -> None:
    """Whoever pushed three deployments must not learn of one alone."""
    results = [
        result("web", UNSUPPORTED, "There is no container engine here."),
        result("api", "Running"),
        result("orders", UNSUPPORTED, "There is no mongod here."),
        result("cart", UNSUPPORTED),
    ]
    assert not_run(results) == (
        "Deployment/shop/web: There is no container engine here. "
        "Nor does it run Deployment/shop/orders, Deployment/shop/cart."
    )
    assert not_run(results[:2]) == "Deployment/shop/web: There is no container engine here."
    assert not_run(results[1:2]) == ""
