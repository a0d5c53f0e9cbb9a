"""A change, told as what happens to requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from reconciler.desired.plan import make_plan
from tests.support.documents import agent, deployment, document, fleet, route, settled, state_of, team

WEB: Final = "routes/shop/web.yaml"
HOST: Final = "web.app.cloudlunacy.test"
FILES: Final = {
    "fleet.yaml": fleet(
        team("shop", hostnames=["*.app.cloudlunacy.test"], agents=["vps-1", "vps-2"]),
        team("data", hostnames=["*.app.cloudlunacy.test"], agents=["vps-1"]),
    ),
    "agents/vps-1.yaml": agent("vps-1"),
    "agents/vps-2.yaml": agent("vps-2", address="10.0.0.2"),
    WEB: route("web", HOST),
}


def told(change: Mapping[str, bytes | None], files: Mapping[str, bytes] = FILES) -> list[str]:
    state = state_of(files)
    plan = make_plan(state, settled(state, change))
    return [
        f"{one.host} {one.entry_point} {one.match}|{one.action}|{one.before}|{one.after}|{', '.join(one.effects)}"
        for one in plan.traffic
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {WEB: route("web", HOST, backends=[{"agent": "vps-2", "port": 8081}])},
            f"{HOST} web |changed|shop/web → vps-1:8081 [127.0.0.1]|shop/web → vps-2:8081 [10.0.0.2]|changes backend",
        ),
        (
            {"agents/vps-1.yaml": agent("vps-1", address="10.0.0.9")},
            f"{HOST} web |changed|shop/web → vps-1:8081 [127.0.0.1]|shop/web → vps-1:8081 [10.0.0.9]|changes backend",
        ),
        ({WEB: None}, f"{HOST} web |removed|shop/web → vps-1:8081 [127.0.0.1]||turns 404"),
        (
            {"routes/shop/api.yaml": route("api")},
            "api.app.cloudlunacy.test web |added||shop/api → vps-1:8081 [127.0.0.1]|new host",
        ),
        (
            {"routes/shop/api.yaml": route("api", HOST, paths=[{"prefix": "/api"}, {"exact": "/x"}], methods=["GET"])},
            (
                f"{HOST} web =/x /api, GET|added||shop/api → vps-1:8081 [127.0.0.1]|"
                "takes part of the requests from shop/web"
            ),
        ),
        (
            {WEB: None, "routes/data/a.yaml": route("a", HOST)},
            f"{HOST} web |changed|shop/web → vps-1:8081 [127.0.0.1]|data/a → vps-1:8081 [127.0.0.1]|changes route",
        ),
        (
            {WEB: route("web", HOST, middlewares=[{"compress": {}}])},
            (
                f"{HOST} web |changed|shop/web → vps-1:8081 [127.0.0.1]|shop/web → vps-1:8081 [127.0.0.1]|"
                "changes middlewares"
            ),
        ),
        (
            {
                "routes/shop/db.yaml": document(
                    "Route", "db", {"type": "mongodb", "backends": [{"agent": "vps-1", "port": 27117}]}
                )
            },
            "vps-1.mongodb.cloudlunacy.test mongodb |added||shop/db → vps-1:27117 [127.0.0.1]|new host",
        ),
    ],
)
def test_a_change_is_told_host_by_host(change: dict[str, bytes | None], expected: str) -> None:
    """Who answered, who will answer, and what that means."""
    assert told(change) == [expected]


def test_a_host_that_moves_to_plain_http_loses_tls() -> None:
    """Both ends of the move say so."""
    files = {**FILES, WEB: route("web", HOST, tls={})}
    found = told({WEB: route("web", HOST)}, files)
    assert [text.partition("|")[0] for text in found] == [f"{HOST} web ", f"{HOST} websecure "]
    assert all(text.endswith("loses TLS") for text in found)


def test_an_exact_host_shadows_a_wildcard() -> None:
    """Requests that the wildcard answered go to the new route, and come back when it goes."""
    files = {**FILES, WEB: route("web", "*.app.cloudlunacy.test")}
    added = {"routes/shop/api.yaml": route("api", HOST)}
    assert told(added, files)[0].endswith("|shadows *.app.cloudlunacy.test of shop/web here")
    assert told({"routes/shop/api.yaml": None}, {**files, **added})[0].endswith("|left to shop/web")


def test_a_deployment_that_moves_is_a_change_of_backend() -> None:
    """The agents behind a deployment are named."""
    files: dict[str, Any] = {
        **FILES,
        "deployments/shop/web.yaml": deployment("web", "vps-1"),
        WEB: route("web", HOST, backends=[{"deployment": "web", "weight": 2}]),
    }
    found = told({"deployments/shop/web.yaml": deployment("web", "vps-2")}, files)
    assert found == [
        (
            f"{HOST} web |changed|shop/web → deployment web (vps-1:8081) (weight 2)|"
            "shop/web → deployment web (vps-2:8081) (weight 2)|changes backend"
        )
    ]


def test_what_is_quarantined_changes_no_traffic() -> None:
    """A broken file is a problem, not a change."""
    assert told({WEB: b"a: ["}) == []
