"""Each middleware of a route becomes Traefik's of the same name, in order."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.desired.middlewares import compile_middlewares
from reconciler.desired.routing import CompileProblem, compile_route
from schemas.middleware import Middleware
from tests.support.traefik import FakeLookup, agent, key, lookup, route

PAGE = {"agent": "vps-1", "port": 9000, "path": "/page.html"}
BCRYPT = "ann:$2y$05$" + "a" * 53
APR1 = "bob:$apr1$abcdefgh$" + "b" * 22
SHA = "eve:{SHA}" + "c" * 27 + "="


def chain(look: FakeLookup | None = None, **middleware: Any) -> Any:
    return compile_middlewares("shop", "shop_web", [Middleware.model_validate(middleware)], look or lookup())


def value(look: FakeLookup | None = None, **middleware: Any) -> Any:
    (found,) = chain(look, **middleware).objects
    return found.value


def htpasswd(text: str) -> FakeLookup:
    return lookup(secrets={("shop", "users", "htpasswd"): text})


AUTH = {"secret": {"name": "users", "key": "htpasswd"}}


@pytest.mark.parametrize(
    ("written", "compiled"),
    [
        (
            {"headers": {"request": {"X-Team": "shop"}, "response": {"Server": ""}}},
            {"headers": {"customRequestHeaders": {"X-Team": "shop"}, "customResponseHeaders": {"Server": ""}}},
        ),
        (
            {"rateLimit": {"average": 5, "burst": 9, "period": "1m", "byHeader": "X-Key"}},
            {
                "rateLimit": {
                    "average": 5,
                    "burst": 9,
                    "period": "1m",
                    "sourceCriterion": {"requestHeaderName": "X-Key"},
                }
            },
        ),
        (
            {"ipAllowList": {"ranges": ["10.0.0.0/8", "::1"], "forwardedDepth": 2}},
            {"ipAllowList": {"sourceRange": ["10.0.0.0/8", "::1/128"], "ipStrategy": {"depth": 2}}},
        ),
        ({"compress": {}}, {"compress": {}}),
        (
            {"compress": {"minResponseBody": "2Ki", "excludedContentTypes": ["image/png"]}},
            {"compress": {"minResponseBodyBytes": 2048, "excludedContentTypes": ["image/png"]}},
        ),
        (
            {"redirect": {"scheme": "https", "port": 8443, "permanent": True}},
            {"redirectScheme": {"scheme": "https", "port": "8443", "permanent": True}},
        ),
        (
            {"redirect": {"host": "new.test", "port": 81}},
            {
                "redirectRegex": {
                    "regex": "^(https?)://[^/]+/(.*)$",
                    "replacement": "$1://new.test:81/$2",
                    "permanent": False,
                }
            },
        ),
        ({"retry": {"attempts": 3}}, {"retry": {"attempts": 3, "initialInterval": "100ms"}}),
        (
            {"circuitBreaker": {"networkErrorRatio": 0.3, "serverErrorRatio": 1e-9, "medianLatency": "2s"}},
            {
                "circuitBreaker": {
                    "expression": "NetworkErrorRatio() > 0.300000 || ResponseCodeRatio(500, 600, 0, 600) > 0.000001"
                    " || LatencyAtQuantileMS(50.0) > 2000",
                    "checkPeriod": "100ms",
                    "fallbackDuration": "10s",
                    "recoveryDuration": "10s",
                }
            },
        ),
        (
            {"forwardAuth": {"address": PAGE, "responseHeaders": ["X-User"]}},
            {
                "forwardAuth": {
                    "address": "http://127.0.0.1:9000/page.html",
                    "maxResponseBodySize": 1048576,
                    "authResponseHeaders": ["X-User"],
                }
            },
        ),
        ({"stripPrefix": {"prefixes": ["/api"]}}, {"stripPrefix": {"prefixes": ["/api"]}}),
        ({"addPrefix": {"prefix": "/v1"}}, {"addPrefix": {"prefix": "/v1"}}),
    ],
)
def test_options_keep_their_meaning(written: dict[str, Any], compiled: dict[str, Any]) -> None:
    """Fields are renamed, sizes and durations converted, expressions built."""
    assert value(**written) == compiled


def test_every_middleware_has_its_place() -> None:
    """Names carry kind and position; the router lists them in the order of the document."""
    found = compile_route(
        key(),
        route(backends=[{"agent": "vps-1", "port": 80}], middlewares=[{"rateLimit": {"average": 1}}, {"compress": {}}]),
        lookup(),
    )
    (router,) = [each.value for each in found if each.section == "http.routers"]
    assert router["middlewares"] == ["shop_web_rate-limit-1", "shop_web_compress-2"]  # type: ignore[typeddict-item]


def test_users_come_from_the_secret() -> None:
    """bcrypt, apr1 and SHA hashes are taken; comments and empty lines are not users."""
    assert value(htpasswd(f"# staff\n{BCRYPT}\n\n{APR1}\n{SHA}\n"), basicAuth=AUTH) == {
        "basicAuth": {"users": [BCRYPT, APR1, SHA], "realm": "restricted", "removeHeader": True}
    }


@pytest.mark.parametrize(
    "text",
    [
        "ann:hunter2",
        f"{BCRYPT}\nann:hunter2",
        "ann:$2y$15$" + "a" * 53,
        "ann:$2y$31$" + "a" * 53,
        "ann:$1$abcdefgh$" + "b" * 22,
        "ann",
        "",
        "# nobody",
        "ann:hunter2:$apr1$abcdefgh$" + "b" * 22,
        "\n".join(f"u{number}:$apr1$abcdefgh${'b' * 22}" for number in range(1001)),
    ],
)
def test_bad_htpasswd_is_refused_without_showing_it(text: str) -> None:
    """Plain passwords, weak or ruinously dear hashes and empty files are a problem whose text holds no secret."""
    with pytest.raises(CompileProblem) as caught:
        value(htpasswd(text), basicAuth=AUTH)
    assert caught.value.code == "invalid-htpasswd"
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint} {caught.value!r}"


def test_maintenance_without_page_is_a_service_without_servers() -> None:
    """The router leads to it, and the route's own service is not there to be probed."""
    found = compile_route(
        key(), route(backends=[{"agent": "vps-1", "port": 80}], middlewares=[{"maintenance": {}}]), lookup()
    )
    assert {(each.section, each.name) for each in found} == {
        ("http.routers", "shop_web"),
        ("http.services", "shop_web_maintenance-1"),
    }


def test_maintenance_with_page_replaces_the_body() -> None:
    """An errors middleware asks the page's service for the body of each 503."""
    found = chain(maintenance={"page": PAGE})
    assert found.service == "shop_web_maintenance-1"
    assert [tuple(each) for each in found.objects] == [
        ("http.services", "shop_web_maintenance-1", {"loadBalancer": {"servers": []}}),
        (
            "http.services",
            "shop_web_maintenance-1_page",
            {"loadBalancer": {"servers": [{"url": "http://127.0.0.1:9000"}]}},
        ),
        (
            "http.middlewares",
            "shop_web_maintenance-1",
            {"errors": {"status": ["503"], "service": "shop_web_maintenance-1_page", "query": "/page.html"}},
        ),
    ]


def test_forward_auth_to_a_quarantined_agent_fails_closed() -> None:
    """With nobody to ask, the address is one that refuses connections."""
    found = value(lookup(agent(state="quarantined")), forwardAuth={"address": PAGE})
    assert found["forwardAuth"]["address"] == "http://127.0.0.1:1/page.html"


def test_every_kind_of_the_schema_is_compiled() -> None:
    """A middleware that the schema knows and the compiler does not would be a traceback."""
    from reconciler.desired.middlewares import _BUILD  # noqa: PLC0415 - the table is private

    assert set(Middleware.model_fields) == {*_BUILD, "maintenance", "connection_limit"}
