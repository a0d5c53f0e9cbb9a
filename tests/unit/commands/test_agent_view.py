"""How agents stand, for people: what is old is not shown as if it were now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from reconciler.commands.agent_view import lines, row
from reconciler.web.amounts import amount
from schemas.api import AgentCondition, AgentDetail, DeploymentMeasures
from schemas.health_api import Drain, EndpointHealth
from schemas.metrics import Unit
from schemas.session import ItemResult

NOW = datetime(2030, 1, 1, tzinfo=UTC)
METRICS = {
    "machine_cpu_ratio": 0.256,
    "machine_memory_total_bytes": 8.0 * 2**30,
    "machine_memory_available_bytes": 6.0 * 2**30,
    "certificates_of_a_later_version": 3.0,
}


def agent(connected: str = "True") -> AgentDetail:
    conditions = tuple(
        AgentCondition.model_validate({"type": kind, "status": status, "reason": "Any", "message": message,
                                       "since": NOW - timedelta(hours=5), "heard": NOW - timedelta(seconds=9)})
        for kind, status, message in (
            ("Connected", connected, ""), ("Workloads", "False", "Not as wanted: shop/web."),
            ("DataPlane", "Unknown", ""),
        )
    )  # fmt: skip
    return AgentDetail(
        name="vps-1", state="active", enrolled=True, connected=connected == "True", version="1.2.0",
        last_seen=NOW - timedelta(seconds=9), wanted_generation=5, applied_generation=5, outcome="applied",
        metrics=METRICS, conditions=conditions, items=(ItemResult(id="Deployment/shop/web", state="Applied"),),
        deployments=(DeploymentMeasures(team="shop", name="web", at=NOW, values={"memory_bytes": 1536.0}),),
    )  # fmt: skip


def test_a_line_says_the_three_conditions_and_what_is_free() -> None:
    """A part that was never measured is a dash."""
    assert row(agent(), NOW) == (
        "vps-1", "active", "yes", "no", "unknown", "26 %", "6.0 GiB (75 %)", "-", "1.2.0", "9 s ago",
    )  # fmt: skip


@pytest.mark.parametrize("connected", ["False", "Unknown"])
def test_numbers_of_a_silent_agent_are_not_in_the_table(connected: str) -> None:
    """Its last load is nobody's load now."""
    assert row(agent(connected), NOW)[5:8] == ("-", "-", "-")
    assert "MEASURED, when it was seen last" in lines(agent(connected), NOW)


def test_one_agent_is_shown_with_everything_that_is_known() -> None:
    """Conditions with since and last heard, items, what deployments use, numbers with units."""
    text = "\n".join(lines(agent(), NOW))
    assert "Workloads  False    5 h ago  9 s ago  Any: Not as wanted: shop/web." in text
    assert "shop/web    -    1.5 KiB  -          -" in text
    assert "machine_cpu_ratio                26 %" in text
    assert "certificates_of_a_later_version  3" in text


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1023, "bytes", "1023 B"),
        (2048, "bytes/s", "2.0 KiB/s"),
        (200 * 2**20, "bytes", "200 MiB"),
        (0.5, "cores", "0.5"),
        (3, "count", "3"),
        (7300, "seconds", "2 h"),
        (59, "seconds", "59 s"),
        (1e19, "bytes", "8882 PiB"),
    ],
)
def test_numbers_have_units(value: float, unit: Unit, expected: str) -> None:
    """In those that people use for them."""
    assert amount(value, unit) == expected


def test_a_drain_and_ports_that_are_out_are_shown() -> None:
    """Who drained it and until when; where each port answers, and why it gets no requests."""
    endpoint = EndpointHealth(
        port=8080, actual=20001, deployment="shop/web", verdict="unhealthy", in_service=False,
        since=NOW - timedelta(minutes=5), reason="its health check fails",
    )  # fmt: skip
    drain = Drain(by="ann", since=NOW, until=NOW + timedelta(hours=1), reason="a new disk")
    one = agent().model_copy(update={"presence": "Drained", "drain": drain, "endpoints": (endpoint,)})
    assert row(one, NOW)[1] == "active, drained"
    text = "\n".join(lines(one, NOW))
    assert "vps-1: active, Drained, version 1.2.0" in text
    assert "drained by ann since 2030-01-01 00:00 UTC until 2030-01-01 01:00 UTC: a new disk" in text
    assert "8080  20001       shop/web    unhealthy" in text
    assert "its health check fails" in text
