"""HTTP routes on the real Traefik: who answers which request."""

from __future__ import annotations

import http.client
import ssl
import warnings
from collections import Counter
from typing import Any

import pytest

from schemas.route import Route
from tests.support.traefik import Backend, FakeLookup, Front, agent, fleet, front, lookup, route
from tests.support.waiting import wait_for

Two = tuple[Backend, Backend]


def look(front: Front, *more: Any) -> FakeLookup:
    return lookup(agent(), *more, fleet=front.fleet)


def to(backend: Backend, name: str = "web", **spec: Any) -> Route:
    backends = spec.pop("backends", [{"agent": "vps-1", "port": backend.port}])
    return route(name, **{"tls": {"mode": "none"}, "backends": backends, **spec})


def answered(front: Front, host: str, path: str = "/", **more: Any) -> str:
    """Name of the backend that answered, or the status."""
    response = front.get(host, path, **more)
    return str(response.json()["backend"]) if response.status_code == 200 else str(response.status_code)


def test_default_host_and_unknown_host(running: Front, two: Two) -> None:
    """The default host answers, any letter case of it too; an unknown host gets Traefik's 404."""
    running.serve(look(running), to(two[0]))
    assert answered(running, "web.app.cloudlunacy.test") == "one"
    assert answered(running, "WEB.App.CloudLunacy.test") == "one"
    assert answered(running, "other.app.cloudlunacy.test") == "404"


def test_a_wildcard_covers_one_label_and_yields_to_an_exact_host(running: Front, two: Two) -> None:
    """*.a.test answers x.a.test, but not a.test, y.x.a.test or xaxtest, and not what another route names exactly."""
    wild = to(two[0], hostnames=["*.a.test"], paths=[{"exact": "/a/long/exact/path"}, {"prefix": "/"}])
    running.serve(look(running), wild, to(two[1], "exact", hostnames=["own.a.test"]))
    hosts = ["x.a.test", "own.a.test", "a.test", "y.x.a.test", "x.aXtest", "x.a.test.evil.test"]
    assert [answered(running, host) for host in hosts] == ["one", "two", "404", "404", "404", "404"]
    assert answered(running, "own.a.test", "/a/long/exact/path") == "two"


def test_prefixes_cover_whole_segments(running: Front, two: Two) -> None:
    """The prefix /a covers /a, /a/ and /a/b, and not /ab or /A; encoded dots and slashes do not lead out of it."""
    running.serve(look(running), to(two[0], paths=[{"prefix": "/a"}]))
    host = "web.app.cloudlunacy.test"
    inside = ["/a", "/a/", "/a/b", "/a?x=/b", "/x/../a"]
    outside = ["/ab", "/A", "/", "/b/a", "/a/../b", "/a/%2e%2e/b", "/a%2Fb"]
    assert [answered(running, host, path) for path in inside] == ["one"] * len(inside)
    assert [answered(running, host, path) for path in outside] == ["404"] * len(outside)


def test_exact_paths_beat_prefixes_and_longer_prefixes_shorter(running: Front, two: Two) -> None:
    """Which route answers depends on how exactly it names the path, not on its position or length."""
    general = to(two[0], paths=[{"prefix": "/"}, {"prefix": "/docs/deep/er"}])
    special = to(
        two[1], "special", hostnames=["web.app.cloudlunacy.test"], paths=[{"prefix": "/docs"}, {"exact": "/me"}]
    )
    running.serve(look(running), general, special)
    paths = ["/", "/docs", "/docs/x", "/docs/deep/er/x", "/me", "/me/x"]
    found = [answered(running, "web.app.cloudlunacy.test", path) for path in paths]
    assert found == ["one", "two", "two", "one", "two", "one"]


@pytest.mark.parametrize(
    ("written", "asked"),
    [("/x%20y", "/x%20y"), ("/%7Eme", "/~me"), ("/~me", "/%7Eme"), ("/~me", "/%7eme"), ("/a+b", "/a+b")],
)
def test_percent_encoding_matches_however_it_is_written(running: Front, two: Two, written: str, asked: str) -> None:
    """RFC 3986: an encoded unreserved character is the character itself."""
    running.serve(look(running), to(two[0], paths=[{"exact": written}]))
    assert answered(running, "web.app.cloudlunacy.test", asked) == "one"


def test_headers_and_methods(running: Front, two: Two) -> None:
    """A route with conditions answers only what meets them all; the one without answers the rest."""
    special = to(
        two[1],
        "special",
        hostnames=["web.app.cloudlunacy.test"],
        headers=[{"name": "X-Beta", "value": "a | b && c"}],
        methods=["POST"],
    )
    running.serve(look(running), to(two[0]), special)
    host = "web.app.cloudlunacy.test"
    beta = {"X-Beta": "a | b && c"}
    assert answered(running, host, headers=beta, method="POST") == "two"
    assert answered(running, host, headers=beta) == "one"
    assert answered(running, host, method="POST") == "one"
    assert answered(running, host, headers={"X-Beta": "a"}, method="POST") == "one"


def test_tls_ends_at_traefik(running: Front, two: Two) -> None:
    """The default mode answers at https and not at http, with TLS 1.2 at least."""
    running.serve(look(running), to(two[0], tls={"mode": "terminate"}))
    assert answered(running, "web.app.cloudlunacy.test", tls=True) == "one"
    assert answered(running, "web.app.cloudlunacy.test") == "404"
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it is deprecated is the point
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    connection = http.client.HTTPSConnection("127.0.0.1", running.ports["websecure"], context=old)
    with pytest.raises(ssl.SSLError):
        connection.connect()
    connection.close()


def test_weights(running: Front, two: Two) -> None:
    """Of 40 requests a backend of weight 3 gets 30, one of weight 1 gets 10, one of weight 0 none."""
    shares = [
        {"agent": "vps-1", "port": two[0].port, "weight": 3},
        {"agent": "vps-1", "port": two[1].port, "weight": 1},
        {"agent": "vps-1", "port": 1, "weight": 0},
    ]
    running.serve(look(running), to(two[0], backends=shares))
    assert Counter(answered(running, "web.app.cloudlunacy.test") for _ in range(40)) == {"one": 30, "two": 10}


def test_a_sticky_client_stays_and_the_others_are_shared_out(running: Front, two: Two) -> None:
    """The cookie leads back to the same backend, weights or not; without it requests alternate."""
    shares = [{"agent": "vps-1", "port": each.port, "weight": weight} for each, weight in zip(two, (1, 2), strict=True)]
    running.serve(look(running), to(two[0], backends=shares, sticky={"maxAge": 60, "sameSite": "strict"}))
    host = "web.app.cloudlunacy.test"
    first = running.get(host)
    cookie = first.headers["set-cookie"]
    assert {"shop_web", "HttpOnly", "SameSite=Strict", "Max-Age=60"} <= {
        part.strip().partition("=")[0] if "shop_web" in part else part.strip() for part in cookie.split(";")
    }
    again = {answered(running, host, headers={"Cookie": cookie.partition(";")[0]}) for _ in range(10)}
    assert again == {first.json()["backend"]}
    assert {answered(running, host) for _ in range(10)} == {"one", "two"}


def test_a_backend_that_fails_its_health_check_gets_nothing_until_it_recovers(running: Front, two: Two) -> None:
    """Even with weights and a cookie that points to it."""
    shares = [{"agent": "vps-1", "port": each.port, "weight": weight} for each, weight in zip(two, (1, 2), strict=True)]
    check = {"path": "/health", "interval": "50ms", "timeout": "40ms"}
    running.serve(look(running), to(two[0], backends=shares, sticky={}, healthCheck=check))
    host = "web.app.cloudlunacy.test"

    def seen(headers: dict[str, str] | None = None) -> set[str]:
        return {answered(running, host, headers=headers or {}) for _ in range(9)}

    assert wait_for(lambda: seen() == {"one", "two"})
    two[0].healthy = False
    wait_for(lambda: seen() == {"two"})
    two[0].healthy = True
    wait_for(lambda: seen() == {"one", "two"})


def test_a_backend_cannot_send_health_checks_elsewhere(running: Front, two: Two) -> None:
    """A redirect in answer to a probe is not followed."""
    two[0].status = 302
    two[0].answer_headers = {"Location": f"http://127.0.0.1:{two[1].port}/inside"}
    running.serve(look(running), to(two[0], healthCheck={"path": "/probe", "interval": "30ms", "timeout": "20ms"}))
    wait_for(lambda: two[0].requests.count("/probe") >= 3)
    assert two[1].requests == []


def test_the_host_header_reaches_the_backend_unless_told_otherwise(running: Front, two: Two) -> None:
    """passHostHeader false gives the backend its own address as Host."""
    running.serve(look(running), to(two[0]), to(two[0], "own", hostnames=["own.test"], passHostHeader=False))
    assert running.get("web.app.cloudlunacy.test").json()["headers"]["Host"] == "web.app.cloudlunacy.test"
    assert running.get("own.test").json()["headers"]["Host"] == f"127.0.0.1:{two[0].port}"


def test_a_deployment_is_reached_on_each_agent_and_a_quarantined_agent_is_not(running: Front, two: Two) -> None:
    """State quarantined takes the agent's backend out; with nobody left the answer is 503 at once."""
    quarantined = agent("vps-2", state="quarantined")
    shares = [{"agent": "vps-1", "port": two[0].port}, {"agent": "vps-2", "port": two[1].port}]
    only = to(two[1], "gone", backends=[{"agent": "vps-2", "port": two[1].port}])
    running.serve(look(running, quarantined), to(two[0], backends=shares), only)
    assert {answered(running, "web.app.cloudlunacy.test") for _ in range(6)} == {"one"}
    assert answered(running, "gone.app.cloudlunacy.test") == "503"


def test_entry_points_of_other_names(tmp_path: Any, two: Two) -> None:
    """Routes attach to the entry points that the fleet names, whatever they are called."""
    renamed = fleet(entryPoints={"http": "port80", "https": "port443", "mongodb": "db"})
    with front(tmp_path, fleet=renamed) as other:
        other.serve(lookup(fleet=renamed), to(two[0]))
        assert answered(other, "web.app.cloudlunacy.test") == "one"
