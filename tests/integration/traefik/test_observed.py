"""What the real Traefik does with backends that are out or answer elsewhere: HTTP, sticky, weighted, TCP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from reconciler.desired.observed import Placement, Share, placed
from reconciler.desired.routing import compile_route
from schemas.route import Route
from tests.integration.traefik.test_http import Two, look, to
from tests.integration.traefik.test_tcp import ask, tcp
from tests.support.traefik import Front, key
from tests.support.waiting import wait_for

HOST: Final = "web.app.cloudlunacy.test"
OUT: Final[tuple[Share, ...]] = ("none", "gone")


def both(two: Two, *weights: int) -> dict[str, Any]:
    shares = weights or (1, 1)
    return {
        "backends": [
            {"agent": "vps-1", "port": one.port, "weight": weight} for one, weight in zip(two, shares, strict=True)
        ]
    }


def serve(running: Front, route: Route, where: Mapping[int, Placement]) -> None:
    """Publish the route with placements by declared port; Traefik must disable nothing of it."""
    compiled = compile_route(key(route.metadata.name), route, look(running))
    running.load(placed(compiled, {f"127.0.0.1:{port}": (one,) for port, one in where.items()}))
    assert running.disabled() == {}


def answers(running: Front, count: int = 8, **more: Any) -> set[str]:
    found = [running.get(HOST, **more) for _ in range(count)]
    return {one.json()["backend"] if one.status_code == 200 else str(one.status_code) for one in found}


@pytest.mark.parametrize("share", OUT)
@pytest.mark.parametrize("weights", [(), (5, 1)])
def test_who_is_out_gets_nothing(running: Front, two: Two, share: Share, weights: tuple[int, ...]) -> None:
    """With weight 0 and without a place alike; where all are out the answer is 503."""
    route, port = to(two[0], **both(two, *weights)), two[0].port
    serve(running, route, {port: Placement(port, share)})
    assert answers(running) == {"two"}
    serve(running, route, {one.port: Placement(one.port, share) for one in two})
    assert answers(running) == {"503"}
    serve(running, route, {})
    assert answers(running, 20) == {"one", "two"}


@pytest.mark.parametrize("share", OUT)
def test_a_cookie_leads_nobody_to_who_is_out(running: Front, two: Two, share: Share) -> None:
    """Who was stuck to it is stuck to the other one from then on."""
    route = to(two[0], **both(two), sticky={})
    serve(running, route, {})
    first = running.get(HOST)
    mine = next(one for one in two if one.name == first.json()["backend"])
    cookie = {"Cookie": first.headers["set-cookie"].partition(";")[0]}
    assert answers(running, headers=cookie) == {mine.name}
    serve(running, route, {mine.port: Placement(mine.port, share)})
    assert answers(running, headers=cookie) == {"one", "two"} - {mine.name}


def test_a_backend_is_asked_where_it_answers(running: Front, two: Two) -> None:
    """At another port of the same host."""
    serve(running, to(two[0]), {two[0].port: Placement(two[1].port)})
    assert answers(running) == {"two"}


@pytest.mark.parametrize("share", OUT)
def test_a_weighted_service_of_tcp_leaves_out_who_has_no_server(running: Front, two: Two, share: Share) -> None:
    """Without it every other connection would end at once; with nobody left each does."""
    spec: dict[str, Any] = {"entryPoint": "plain", "tls": {"mode": "none"}, **both(two, 2, 1)}
    route, port = tcp(two, **spec), two[0].port
    serve(running, route, {port: Placement(port, share)})
    wait_for(lambda: ask(running.connect("telnet")) == "two", what="the other backend")
    assert {ask(running.connect("telnet")) for _ in range(6)} == {"two"}
    serve(running, route, {one.port: Placement(one.port, share) for one in two})
    wait_for(lambda: ask(running.connect("telnet")) == "", what="nobody")
    assert {ask(running.connect("telnet")) for _ in range(2)} == {""}
