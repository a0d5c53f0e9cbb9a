"""Request figures out of Traefik's metrics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import Transient
from reconciler.traefik.figures import added, rates, reading


def text(requests: int, seconds: float = 0.0, router: str = "shop_web@file", code: str = "200") -> str:
    labels = f'code="{code}",method="GET",protocol="http",router="{router}",service="shop_web@file"'
    return (
        "# TYPE traefik_router_requests_total counter\n"
        f"traefik_router_requests_total{{{labels}}} {requests}\n"
        "# TYPE traefik_router_request_duration_seconds histogram\n"
        f'traefik_router_request_duration_seconds_bucket{{{labels},le="0.1"}} {requests}\n'
        f"traefik_router_request_duration_seconds_sum{{{labels}}} {seconds}\n"
        f"traefik_router_request_duration_seconds_count{{{labels}}} {requests}\n"
    )


def test_two_readings_make_a_rate() -> None:
    """Requests a second by class of status, and how long an answer took."""
    found = rates(reading(text(10, 1.0), 0.0), reading(text(40, 4.0), 10.0), "shop_web")
    assert found is not None
    assert found.by_class == {"2xx": 3.0}
    assert found.mean_seconds == pytest.approx(0.1)


def test_all_routers_of_a_route_count() -> None:
    """Hosts and paths of different rank make several."""
    before = reading("traefik_up 1\n", 0.0)
    after = reading(text(10) + text(20, router="shop_web_router-2@file", code="503"), 10.0)
    found = rates(before, after, "shop_web")
    assert found is not None
    assert found.by_class == {"2xx": 1.0, "5xx": 2.0}
    assert rates(before, after, "shop_other") == ({}, None, 0.0, 10.0)


def test_a_restart_of_traefik_takes_nothing_away() -> None:
    """A counter that fell began again at nothing."""
    found = rates(reading(text(1000), 0.0), reading(text(20), 10.0), "shop_web")
    assert found is not None
    assert found.by_class == {"2xx": 2.0}


def test_fronts_are_added() -> None:
    """The mean is weighed by what was asked."""
    one = rates(reading(text(0), 0.0), reading(text(30, 3.0), 10.0), "shop_web")
    two = rates(reading(text(0), 0.0), reading(text(10, 3.0), 10.0), "shop_web")
    assert one is not None
    assert two is not None
    total = added([one, two])
    assert total is not None
    assert total.by_class == {"2xx": 4.0}
    assert total.mean_seconds == pytest.approx(0.15)
    assert added([]) is None


@given(st.text(max_size=200))
def test_other_text_is_refused_or_empty(noise: str) -> None:
    """A metrics endpoint may answer anything."""
    for said in (noise, f"traefik_router_requests_total{{@file{noise}"):
        try:
            reading(said, 0.0)
        except Transient:
            continue
