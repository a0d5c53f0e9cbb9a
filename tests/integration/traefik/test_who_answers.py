"""What we say who answers, held against the real Traefik over many requests."""

from __future__ import annotations

import random
from typing import Any, Final

from reconciler.desired.asking import METHODS, question
from reconciler.desired.routing import compile_route
from reconciler.desired.state import State
from reconciler.desired.who_answers import World, explain_request
from schemas.explain_api import Explanation
from schemas.objects import ObjectKey
from schemas.route import Route
from tests.support.documents import HTPASSWD, agent, certificate, fleet, route, secret, state_of, team
from tests.support.traefik import Backend, Front

DOMAIN: Final = "cloudlunacy.test"
HOSTS: Final = ("a.test", "b.test", "x.a.test", "y.x.a.test", f"web.app.{DOMAIN}", "nobody.test")
SEGMENTS: Final = ("a", "ab", "b", "x y", "%7Ed", "..", ".", "", "e%2Ff", "~d")
REQUESTS: Final = 400


def files(one: int, two: int) -> dict[str, bytes | None]:
    first, second = [{"agent": "vps-1", "port": one}], [{"agent": "vps-1", "port": two}]
    prefixes = [{"prefix": path} for path in ("/a", "/b/", "/~d")]
    return {
        "fleet.yaml": fleet(
            team("shop", hostnames=["a.test", "*.a.test", "b.test", "*.app.cloudlunacy.test"], agents=["vps-1"])
        ),
        "agents/vps-1.yaml": agent("vps-1"),
        "certificates/all.yaml": certificate("all", "a.test", "*.a.test", "b.test"),
        "secrets/shop/users.yaml": secret("users", "htpasswd"),
        "routes/shop/whole.yaml": route("whole", "a.test", backends=first),
        "routes/shop/parts.yaml": route("parts", "a.test", "b.test", backends=second, paths=prefixes),
        "routes/shop/exact.yaml": route("exact", "a.test", backends=first, paths=[{"exact": "/a/ab"}, {"exact": "/b"}]),
        "routes/shop/posts.yaml": route("posts", "b.test", backends=second, methods=["POST", "PUT"]),
        "routes/shop/kinds.yaml": route(
            "kinds", "*.a.test", backends=second, headers=[{"name": "X-Env", "value": "dev"}]
        ),
        "routes/shop/wild.yaml": route("wild", "*.a.test", backends=first, tls={}),
        "routes/shop/safe.yaml": route("safe", "b.test", "x.a.test", backends=first, tls={}),
        "routes/shop/sends.yaml": route(
            "sends", "b.test", backends=first, paths=[{"prefix": "/x y".replace(" ", "%20")}],
            middlewares=[{"redirect": {"scheme": "https"}}],
        ),
        "routes/shop/moved.yaml": route(
            "moved", "b.test", backends=first, paths=[{"prefix": "/ab"}],
            middlewares=[{"headers": {"request": {"X-A": "b"}}}, {"redirect": {"host": "a.test", "permanent": True}}],
        ),
        "routes/shop/asks.yaml": route(
            "asks", "a.test", backends=first, paths=[{"prefix": "/b/ab"}],
            middlewares=[{"basicAuth": {"secret": {"name": "users", "key": "htpasswd"}}}],
        ),
        "routes/shop/cut.yaml": route(
            "cut", "web.app.cloudlunacy.test", backends=second, paths=[{"prefix": "/a"}],
            middlewares=[{"stripPrefix": {"prefixes": ["/a"]}}, {"addPrefix": {"prefix": "/v1"}}],
        ),
        "routes/shop/off.yaml": route(
            "off", "web.app.cloudlunacy.test", backends=second, paths=[{"prefix": "/b"}],
            middlewares=[{"maintenance": {}}],
        ),
        "routes/shop/none.yaml": route(
            "none", "web.app.cloudlunacy.test", paths=[{"exact": "/~d"}], backends=[{**first[0], "weight": 0}],
        ),
    }  # fmt: skip


def world_of(state: State) -> World:
    view = state.view(lambda _: HTPASSWD)

    def compiled(key: ObjectKey) -> Any:
        found = state.objects[key]
        assert isinstance(found, Route)
        return compile_route(key, found, view)

    return World(state, view, compiled, {})


def told(found: Explanation, ports: dict[int, str]) -> tuple[str, ...]:
    """What of an explanation shows in an answer."""
    if found.outcome != "backend":
        return str(found.status), found.location
    (backend,) = found.backends
    return ports[int(backend.address.rpartition(":")[2])], found.path_at_backend


def test_the_explanation_is_what_traefik_does(running: Front, two: tuple[Backend, Backend]) -> None:
    """Backend, status, Location and rewritten path agree, for requests of every method to many hosts and paths."""
    state = state_of(files(*(one.port for one in two)))
    assert not list(state.quarantined)
    world, ports = world_of(state), {one.port: one.name for one in two}
    running.load(*(world.compile(key) for key in state.served if key.kind == "Route"))
    assert running.disabled() == {}
    chance = random.Random(5)
    seen = set()
    for _ in range(REQUESTS):
        tls, host = chance.random() < 0.3, chance.choice(HOSTS)
        path = "/" + "/".join(chance.choices(SEGMENTS, k=chance.randint(0, 3))).replace(" ", "%20")
        method = chance.choice(METHODS) if chance.random() < 0.3 else "GET"
        headers = {"X-Env": chance.choice(("dev", "live"))} if chance.random() < 0.5 else {}
        url = f"{'https' if tls else 'http'}://{host}{path}?q=1"
        found = explain_request(world, question(url, method=method, headers=headers))
        if found.outcome == "backend" and method not in ("GET", "POST"):
            continue  # these backends know no other
        expected = told(found, ports)
        answer = running.get(host, f"{path}?q=1", method=method, tls=tls, headers=headers)
        seen.add(found.outcome)
        if answer.status_code == 200:
            said = answer.json()
            where = said["path"].partition("?")[0] if found.path_at_backend else ""
            actual = (said["backend"], where)
        else:
            actual = (str(answer.status_code), answer.headers.get("Location", ""))
        assert actual == expected, (method, url, headers, found)
    assert seen == {"backend", "redirect", "refused", "not-found", "unavailable"}
