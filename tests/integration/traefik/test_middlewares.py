"""Every middleware on the real Traefik, by what a client and a backend see."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from tests.integration.traefik.test_http import Two, answered, look, to
from tests.support.traefik import Front, lookup
from tests.support.waiting import wait_for

HOST = "web.app.cloudlunacy.test"


def serve(front: Front, two: Two, *middlewares: dict[str, Any], **spec: Any) -> None:
    front.serve(look(front), to(two[0], middlewares=list(middlewares), **spec))


def page(two: Two) -> dict[str, Any]:
    return {"agent": "vps-1", "port": two[1].port, "path": "/page.html"}


def basic(user: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}


def test_headers(running: Front, two: Two) -> None:
    """Request headers reach the backend, response headers the client; an empty value removes one."""
    two[0].answer_headers = {"X-Powered-By": "python"}
    request = {"X-Team": "shop", "X-Secret": ""}
    serve(running, two, {"headers": {"request": request, "response": {"X-Frame-Options": "DENY", "X-Powered-By": ""}}})
    response = running.get(HOST, headers={"X-Secret": "1"})
    seen = response.json()["headers"]
    assert (seen["X-Team"], "X-Secret" in seen) == ("shop", False)
    assert (response.headers["X-Frame-Options"], "X-Powered-By" in response.headers) == ("DENY", False)


def test_rate_limit(running: Front, two: Two) -> None:
    """Above the burst the answer is 429; with byHeader each value has its own allowance."""
    serve(running, two, {"rateLimit": {"average": 1, "period": "1h", "burst": 3, "byHeader": "X-Key"}})
    assert [answered(running, HOST, headers={"X-Key": "a"}) for _ in range(5)] == ["one"] * 3 + ["429"] * 2
    assert answered(running, HOST, headers={"X-Key": "b"}) == "one"


def test_basic_auth(running: Front, two: Two) -> None:
    """Only a user of the secret gets in, and the password does not reach the backend."""
    digest = base64.b64encode(hashlib.sha1(b"secret").digest()).decode()
    secrets = {("shop", "users", "htpasswd"): f"ann:{{SHA}}{digest}\n"}
    auth = {"basicAuth": {"secret": {"name": "users", "key": "htpasswd"}, "realm": "Staff only"}}
    running.serve(lookup(fleet=running.fleet, secrets=secrets), to(two[0], middlewares=[auth]))
    refused = running.get(HOST)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Basic realm="Staff only"')
    assert running.get(HOST, headers=basic("ann:wrong")).status_code == 401
    let_in = running.get(HOST, headers=basic("ann:secret"))
    assert (let_in.status_code, "Authorization" in let_in.json()["headers"]) == (200, False)


def test_ip_allow_list(running: Front, two: Two) -> None:
    """Clients of other networks get 403; with a depth the forwarded address counts, and a client cannot forge it."""
    serve(running, two, {"ipAllowList": {"ranges": ["10.0.0.0/8"]}})
    assert answered(running, HOST) == "403"
    assert answered(running, HOST, headers={"X-Forwarded-For": "10.0.0.1"}) == "403"
    serve(running, two, {"ipAllowList": {"ranges": ["127.0.0.0/8"]}})
    assert answered(running, HOST) == "one"
    serve(running, two, {"ipAllowList": {"ranges": ["10.0.0.0/8"], "forwardedDepth": 1}})
    assert answered(running, HOST, headers={"X-Forwarded-For": "10.0.0.1"}) == "403"


def test_compress(running: Front, two: Two) -> None:
    """Bodies above the limit are compressed for clients that accept it, except excluded types."""
    two[0].body = "x" * 4000
    serve(running, two, {"compress": {"minResponseBody": "2Ki"}})
    assert running.get(HOST, headers={"Accept-Encoding": "gzip"}).headers["content-encoding"] == "gzip"
    two[0].body = "x" * 1000
    assert "content-encoding" not in running.get(HOST, headers={"Accept-Encoding": "gzip"}).headers
    two[0].body = "x" * 4000
    serve(running, two, {"compress": {"excludedContentTypes": ["text/plain"]}})
    assert "content-encoding" not in running.get(HOST, headers={"Accept-Encoding": "gzip"}).headers


def test_redirects(running: Front, two: Two) -> None:
    """Scheme and port, or another host; path and query stay."""
    serve(running, two, {"redirect": {"scheme": "https", "port": 8443, "permanent": True}})
    moved = running.get(HOST, "/a/b?c=d")
    assert (moved.status_code, moved.headers["location"]) == (301, f"https://{HOST}:8443/a/b?c=d")
    serve(running, two, {"redirect": {"host": "new.test"}})
    moved = running.get(HOST, "/a/b?c=d")
    assert (moved.status_code, moved.headers["location"]) == (302, "http://new.test/a/b?c=d")
    serve(running, two, {"redirect": {"host": "new.test", "scheme": "https", "port": 444}})
    assert running.get(HOST, "/").headers["location"] == "https://new.test:444/"


def test_retry(running: Front, two: Two) -> None:
    """A connection that is refused is tried at the other backend."""
    dead = [{"agent": "vps-1", "port": 1}, {"agent": "vps-1", "port": two[0].port}]
    serve(running, two, backends=dead)
    assert "502" in {answered(running, HOST) for _ in range(4)}
    serve(running, two, {"retry": {"attempts": 3, "initialInterval": "1ms"}}, backends=dead)
    assert {answered(running, HOST) for _ in range(6)} == {"one"}


def test_circuit_breaker(running: Front, two: Two) -> None:
    """When most answers are 5xx the circuit opens: 503, and the backend is left alone."""
    two[0].status = 500
    serve(running, two, {"circuitBreaker": {"serverErrorRatio": 0.5, "networkErrorRatio": 0.5, "medianLatency": "5s"}})
    wait_for(lambda: answered(running, HOST) == "503")
    before = len(two[0].requests)
    assert {answered(running, HOST) for _ in range(5)} == {"503"}
    assert len(two[0].requests) == before


def test_forward_auth(running: Front, two: Two) -> None:
    """The other service decides; its headers are copied to the request."""
    serve(running, two, {"forwardAuth": {"address": {**page(two), "path": "/auth"}, "responseHeaders": ["X-User"]}})
    two[1].answer_headers = {"X-User": "ann"}
    assert running.get(HOST).json()["headers"]["X-User"] == "ann"
    assert running.get(HOST, headers={"X-User": "root"}).json()["headers"]["X-User"] == "ann"
    assert set(two[1].requests) == {"/auth"}
    two[1].status = 403
    assert answered(running, HOST) == "403"


def test_maintenance(running: Front, two: Two) -> None:
    """503 in place of the service; with a page its body, and the service itself is not asked."""
    serve(running, two, {"maintenance": {}})
    assert running.get(HOST).status_code == 503
    two[1].body = "back soon"
    serve(running, two, {"headers": {"response": {"X-Team": "shop"}}}, {"maintenance": {"page": page(two)}})
    response = running.get(HOST, "/any/path")
    assert (response.status_code, response.text, response.headers["X-Team"]) == (503, "back soon", "shop")
    assert (two[0].requests, two[1].requests) == ([], ["/page.html"])


def test_maintenance_whose_page_is_away_is_still_maintenance(running: Front, two: Two) -> None:
    """No page, no traceback: an error of the 5xx kind and nothing of the service."""
    serve(running, two, {"maintenance": {"page": {**page(two), "port": 1}}})
    assert running.get(HOST).status_code in (502, 503)
    assert two[0].requests == []


def test_prefixes_are_stripped_and_added_in_order(running: Front, two: Two) -> None:
    """stripPrefix then addPrefix: the backend sees the path that both make."""
    serve(
        running,
        two,
        {"stripPrefix": {"prefixes": ["/api"]}},
        {"addPrefix": {"prefix": "/v1"}},
        paths=[{"prefix": "/api"}],
    )
    assert [running.get(HOST, path).json()["path"] for path in ("/api", "/api/x?y=z")] == ["/v1", "/v1/x?y=z"]


def test_order_decides(running: Front, two: Two) -> None:
    """A list's first middleware sees the request first: what it refuses, the second never counts."""
    limit = {"rateLimit": {"average": 1, "period": "1h", "burst": 1}}
    deny = {"ipAllowList": {"ranges": ["10.0.0.0/8"]}}
    serve(running, two, deny, limit)
    assert [answered(running, HOST) for _ in range(3)] == ["403"] * 3
    serve(running, two, limit, deny)
    assert [answered(running, HOST) for _ in range(3)] == ["403", "429", "429"]
