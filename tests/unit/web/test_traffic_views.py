"""What is published, as the API and the dashboard show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from reconciler.desired.observed import AgentPlacements
from reconciler.errors import Refused
from reconciler.steps.passing import Published
from reconciler.steps.rendering import compiled_of
from reconciler.web.traffic_views import TrafficViews
from schemas.traffic_api import RequestFigures
from tests.support.documents import HTPASSWD, agent, deployment, document, fleet, route, state_of, team

FILES: dict[str, bytes | None] = {
    "fleet.yaml": fleet(
        team("shop", hostnames=["*.app.cloudlunacy.test"], agents=["vps-1", "vps-2"]),
        team("blog", hostnames=["blog.test"], agents=["vps-2"]),
    ),
    "agents/vps-1.yaml": agent("vps-1"),
    "agents/vps-2.yaml": agent("vps-2", address="10.0.0.2"),
    "deployments/shop/web.yaml": deployment("web", "vps-1", "vps-2"),
    "routes/shop/web.yaml": route("web", backends=[{"deployment": "web"}], paths=[{"prefix": "/a"}]),
    "routes/shop/wild.yaml": route("wild", "*.app.cloudlunacy.test", tls={}),
    "routes/shop/off.yaml": route("off", middlewares=[{"maintenance": {}}]),
    "routes/blog/blog.yaml": route("blog", "blog.test", backends=[{"agent": "vps-2", "port": 8081}]),
    "routes/shop/db.yaml": document(
        "Route", "db", {"type": "mongodb", "backends": [{"agent": "vps-1", "port": 27117}]}
    ),
}


class NoFigures:
    """No front was read."""

    missing = "There is no front to ask."

    def of(self, team: str, route: str) -> RequestFigures | None:
        return None


def views(placements: Mapping[str, AgentPlacements] | None = None) -> TrafficViews:
    state = state_of(FILES)
    assert not list(state.quarantined)
    published = Published(1, "a" * 40, state, placements=placements or {})
    return TrafficViews(lambda: published, compiled_of, NoFigures(), lambda _: HTPASSWD)


def hosts(found: TrafficViews, **asked: Any) -> list[str]:
    return [f"{one.host} {one.state}" for one in found.page(**asked).rows]


def test_hosts_stand_in_order_with_who_serves_them() -> None:
    """A wildcard stands before what it covers."""
    rows = views().page().rows
    assert [one.host for one in rows] == [
        "*.app.cloudlunacy.test",
        "blog.test",
        "off.app.cloudlunacy.test",
        "vps-1.mongodb.cloudlunacy.test",
        "web.app.cloudlunacy.test",
    ]
    assert [(one.agent, one.share) for one in rows[4].backends] == [("vps-1", 0.5), ("vps-2", 0.5)]
    assert (rows[4].match, rows[0].certificate, rows[3].type) == ("/a", "cloudlunacy__app", "mongodb")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"team": "blog"}, ["blog.test"]),
        ({"text": "WEB.app"}, ["web.app.cloudlunacy.test"]),
        ({"agent": "vps-2"}, ["blog.test", "web.app.cloudlunacy.test"]),
        ({"state": "maintenance"}, ["off.app.cloudlunacy.test"]),
        ({"text": "<script>"}, []),
    ],
)
def test_filters_leave_the_others_out(asked: dict[str, Any], expected: list[str]) -> None:
    """By team, text, agent and state."""
    found = views().page(**asked)
    assert ([one.host for one in found.rows], found.total) == (expected, len(expected))


def test_pages_follow_one_another() -> None:
    """Each row once, whatever the size of a page."""
    found, after, seen = views(), "", []
    for _ in range(9):
        page = found.page(limit=2, after=after)
        seen += [one.host for one in page.rows]
        after = page.next
        if not after:
            break
    assert seen == [one.host for one in found.page().rows]


def test_what_is_seen_of_backends_is_told() -> None:
    """One agent silent: degraded; the only one: unserved."""
    found = views({"vps-2": AgentPlacements(share="gone")})
    told = {one.host: one.state for one in found.page().rows}
    assert (told["web.app.cloudlunacy.test"], told["blog.test"]) == ("degraded", "unserved")
    assert hosts(found, state="unserved") == ["blog.test unserved"]


def test_a_host_has_all_that_answers_there() -> None:
    """And only that."""
    found = views()
    assert [one.route for one in found.host("web.app.cloudlunacy.test")] == ["web"]
    assert found.host("app.cloudlunacy.test") == ()


def test_an_explanation_refuses_what_is_no_url() -> None:
    """With a code for programs and a sentence for people."""
    found = views()
    assert found.explain("http://blog.test/x", headers=["X-A: b"]).outcome == "backend"
    for url, headers in (("ftp://x", []), ("http://a.test/", ["nothing"])):
        with pytest.raises(Refused):
            found.explain(url, headers=headers)
