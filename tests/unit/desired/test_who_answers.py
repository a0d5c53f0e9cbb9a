"""Who answers a request, and why."""

from __future__ import annotations

from typing import Any, Final

import pytest

from reconciler.desired.asking import question
from reconciler.desired.observed import AgentPlacements, Placement, Placements
from reconciler.desired.routing import compile_route
from reconciler.desired.state import State
from reconciler.desired.who_answers import World, explain_request
from schemas.explain_api import Explanation
from schemas.objects import ObjectKey
from schemas.route import Route
from tests.support.documents import HTPASSWD, agent, certificate, document, fleet, route, secret, state_of, team

HOST: Final = "web.app.cloudlunacy.test"
SHARED: Final = [{"agent": "vps-1", "port": 8081, "weight": 3}, {"agent": "vps-2", "port": 8081}]
FILES: Final[dict[str, bytes | None]] = {
    "fleet.yaml": fleet(
        team("shop", hostnames=["*.app.cloudlunacy.test", "a.test", "*.a.test"], agents=["vps-1", "vps-2"]),
        entryPoints={"tcp": {"mail": "smtps"}},
    ),
    "agents/vps-1.yaml": agent("vps-1"),
    "agents/vps-2.yaml": agent("vps-2", address="10.0.0.2"),
    "secrets/shop/users.yaml": secret("users", "htpasswd"),
    "certificates/a.yaml": certificate("a", "a.test"),
    "routes/shop/web.yaml": route("web", HOST, backends=SHARED),
    "routes/shop/api.yaml": route("api", HOST, paths=[{"prefix": "/api"}], middlewares=[
        {"basicAuth": {"secret": {"name": "users", "key": "htpasswd"}}}, {"stripPrefix": {"prefixes": ["/api"]}}]),
    "routes/shop/old.yaml": route("old", "old.app.cloudlunacy.test", middlewares=[
        {"redirect": {"host": HOST, "permanent": True}}]),
    "routes/shop/off.yaml": route("off", "off.app.cloudlunacy.test", middlewares=[{"maintenance": {}}]),
    "routes/shop/safe.yaml": route("safe", "a.test", tls={}),
    "routes/shop/wild.yaml": route("wild", "*.app.cloudlunacy.test", backends=[{"agent": "vps-2", "port": 9000}]),
    "routes/shop/db.yaml": document(
        "Route", "db", {"type": "mongodb", "backends": [{"agent": "vps-1", "port": 27117}]}),
    "routes/shop/mail.yaml": document("Route", "mail", {"type": "tcp", "entryPoint": "mail", "hostnames": ["a.test"],
        "tls": {"mode": "passthrough"}, "backends": [{"agent": "vps-1", "port": 2525}]}),
}  # fmt: skip


@pytest.fixture(scope="module")
def state() -> State:
    found = state_of(FILES)
    assert not list(found.quarantined)
    return found


def told(state: State, url: str, placements: Placements | None = None, **more: Any) -> Explanation:
    view = state.view(lambda _: HTPASSWD)

    def compiled(key: ObjectKey) -> Any:
        found = state.objects[key]
        assert isinstance(found, Route)
        return compile_route(key, found, view)

    return explain_request(World(state, view, compiled, placements or {}), question(url, **more))


def test_the_winner_is_told_with_what_it_beats(state: State) -> None:
    """The longer prefix beats the shorter, the exact host the wildcard."""
    found = told(state, f"http://{HOST}/api/x", headers={"Authorization": "Basic eA=="})
    assert found.router is not None
    assert (found.router.file, found.outcome, found.entry_point) == ("routes/shop/api.yaml", "backend", "web")
    assert [one.route for one in found.beaten] == ["web", "wild"]
    assert found.path_at_backend == "/x"
    assert [one.kind for one in found.middlewares] == ["basicAuth", "stripPrefix"]


def test_backends_have_their_shares(state: State) -> None:
    """As the weights say; an agent that takes no requests loses its part to the others."""
    found = told(state, f"http://{HOST}/")
    assert [(one.agent, one.weight, one.share) for one in found.backends] == [("vps-1", 3, 0.75), ("vps-2", 1, 0.25)]
    drained = {"vps-1": AgentPlacements({8081: Placement(8081, "none")})}
    found = told(state, f"http://{HOST}/", drained)
    assert [one.share for one in found.backends] == [0.0, 1.0]
    moved = {"vps-2": AgentPlacements({8081: Placement(41000)})}
    assert told(state, f"http://{HOST}/", moved).backends[1].actual == "10.0.0.2:41000"


def test_without_backends_the_front_answers_503(state: State) -> None:
    """All agents silent: nobody is there to ask."""
    gone = {name: AgentPlacements(share="gone") for name in ("vps-1", "vps-2")}
    found = told(state, f"http://{HOST}/", gone)
    assert (found.outcome, found.status) == ("unavailable", 503)
    assert told(state, "http://off.app.cloudlunacy.test/").status == 503


@pytest.mark.parametrize(
    ("url", "outcome", "status", "says"),
    [
        (f"http://{HOST}/api/x", "refused", 401, "asks for user and password"),
        ("http://old.app.cloudlunacy.test/p?q=1", "redirect", 301, f"http://{HOST}/p?q=1"),
        (f"https://{HOST}/", "not-found", 404, "404"),
        ("http://nobody.test/", "not-found", 404, "404"),
        ("http://a.test/", "not-found", 404, "404"),
        ("https://a.test/", "backend", None, "A backend"),
        ("mongodb://vps-1.mongodb.cloudlunacy.test/db?tls=true", "backend", None, "goes to a backend"),
        ("mongodb://vps-1.mongodb.cloudlunacy.test/db", "closed", None, "over TLS alone"),
        ("mongodb+srv://vps-9.mongodb.cloudlunacy.test", "closed", None, "has this name"),
        ("tls://a.test", "backend", None, "goes to a backend"),
        ("tls://b.test", "closed", None, "this server name"),
    ],
)
def test_every_end_is_told(state: State, url: str, outcome: str, status: int | None, says: str) -> None:
    """What a client gets, and a sentence for people."""
    found = told(state, url)
    assert (found.outcome, found.status) == (outcome, status)
    assert says in f"{found.message} {found.location}"


def test_tls_is_told(state: State) -> None:
    """Which certificate the name gets, and where none covers it."""
    found = told(state, "https://a.test/").tls
    assert found is not None
    assert found.certificate == "a"
    unknown = told(state, "https://nobody.test/").tls
    assert unknown is not None
    assert unknown.certificate == ""
    passed = told(state, "tls://a.test").tls
    assert passed is not None
    assert passed.mode == "passthrough"


def test_a_miss_has_a_hint(state: State) -> None:
    """The other scheme, the team that may claim the host, or that nobody may."""
    assert "over https" in told(state, "http://a.test/").hint
    assert "routes/shop/" in told(state, "http://x.a.test/").hint
    assert "Grant it" in told(state, "http://nobody.test/").hint
