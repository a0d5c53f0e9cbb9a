"""A change, told as what happens to requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from reconciler.desired.plan import make_plan
from reconciler.desired.routing import compile_route
from reconciler.desired.settle import Settled, settle
from reconciler.desired.state import State
from tests.support.documents import (
    HTPASSWD,
    SEALED,
    agent,
    deployment,
    document,
    fleet,
    news_of,
    route,
    settled,
    state_of,
    team,
)

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


@pytest.mark.parametrize(
    ("before", "after", "effect"),
    [
        ({}, {"passHostHeader": False}, "changes the Host header that backends get"),
        ({}, {"transport": {"dialTimeout": "1s"}}, "changes transport"),
        ({}, {"healthCheck": {"path": "/up"}}, "changes health check"),
        ({"healthCheck": {"interval": "5s"}}, {"healthCheck": {"interval": "6s"}}, "changes health check"),
        ({}, {"sticky": {}}, "changes stickiness"),
        ({"sticky": {"secure": True}}, {"sticky": {"name": "id"}}, "changes stickiness"),
        (
            {"backends": [{"agent": "vps-1", "port": 8081}, {"agent": "vps-2", "port": 8081}]},
            {"backends": [{"agent": "vps-1", "port": 8081}, {"agent": "vps-2", "port": 8081, "weight": 3}]},
            "changes backend",
        ),
        ({}, {"backends": [{"agent": "vps-1", "port": 8081, "weight": 0}]}, "loses its last backend (503)"),
        ({}, {"middlewares": [{"maintenance": {}}]}, "loses its last backend (503), changes middlewares"),
    ],
)
def test_what_a_route_does_to_requests_is_told(before: dict[str, Any], after: dict[str, Any], effect: str) -> None:
    """Whatever Traefik will do differently has a name, and nothing else is named."""
    files = {**FILES, WEB: route("web", HOST, **before)}
    (line,) = told({WEB: route("web", HOST, **after)}, files)
    assert line.rpartition("|")[2] == effect


def test_an_agent_out_of_service_takes_its_hosts_with_it() -> None:
    """The document of the route is the same, and its last server is gone; later it comes back."""
    quarantined = {"agents/vps-1.yaml": agent("vps-1", state="quarantined")}
    assert told(quarantined) == [
        (
            f"{HOST} web |changed|shop/web → vps-1:8081 [127.0.0.1]|"
            "shop/web → vps-1:8081 [127.0.0.1] (quarantined)|loses its last backend (503)"
        )
    ]
    (line,) = told({"agents/vps-1.yaml": FILES["agents/vps-1.yaml"]}, {**FILES, **quarantined})
    assert line.endswith("|gains its first backend")


def test_each_database_of_a_route_is_judged_by_its_own_agent() -> None:
    """Only the name of the agent that is out of service is refused."""
    backends = [{"agent": "vps-1", "port": 27117}, {"agent": "vps-2", "port": 27117}]
    files = {**FILES, WEB: document("Route", "web", {"type": "mongodb", "backends": backends})}
    found = told({"agents/vps-2.yaml": agent("vps-2", state="quarantined")}, files)
    assert [(line.partition(" ")[0], line.rpartition("|")[2]) for line in found] == [
        ("vps-2.mongodb.cloudlunacy.test", "loses its last backend (refused)")
    ]


def test_a_default_of_the_fleet_is_told_at_the_hosts_that_have_it() -> None:
    """A health check without an interval of its own follows the fleet's."""
    files = {**FILES, WEB: route("web", HOST, healthCheck={})}
    changed = json.loads(FILES["fleet.yaml"])
    changed["spec"]["defaults"] = {"healthInterval": "11s"}
    assert told({"fleet.yaml": json.dumps(changed).encode()}, files)[0].endswith("|changes health check")


def test_a_changed_password_is_told_without_itself() -> None:
    """What is sealed counts by what it opens to, and never shows."""
    path, other = "secrets/shop/users.yaml", SEALED.replace("YWdl", "YWdm")
    basic = {"basicAuth": {"secret": {"name": "users", "key": "htpasswd"}}}
    files = {
        **FILES,
        path: document("Secret", "users", {"sealed": {"htpasswd": SEALED}}),
        WEB: route("web", HOST, middlewares=[basic]),
    }

    def settle_files(base: State, files: Mapping[str, bytes]) -> Settled:
        opened = {SEALED: HTPASSWD, other: HTPASSWD.replace("user:", "other:")}
        news = [news_of(path, content) for path, content in files.items()]
        return settle(base, "a" * 40, news, compile_route=compile_route, open_sealed=lambda text: opened[text])

    base = settle_files(State(), files).state
    change = {path: document("Secret", "users", {"sealed": {"htpasswd": other}})}
    (one,) = make_plan(base, settle_files(base, change)).traffic
    assert one.effects == ("changes middlewares",)
    assert "$2y$" not in one.model_dump_json()


def test_a_base_that_was_restored_is_compared_by_what_it_was_compiled_to() -> None:
    """After a restart nothing is compiled yet, and an agent out of service is told all the same."""
    state = replace(state_of(FILES), compiled={})
    plan = make_plan(state, settled(state, {"agents/vps-1.yaml": agent("vps-1", state="quarantined")}))
    assert [one.effects for one in plan.traffic] == [("loses its last backend (503)",)]
