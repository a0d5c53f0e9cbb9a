from __future__ import annotations

from typing import Any

import pytest

from reconciler.desired.challenge_path import PRIORITY, challenge_routes, is_reserved
from reconciler.desired.matching import http_matches
from reconciler.desired.traefik_model import TraefikObjects
from schemas.route import HeaderMatch, PathMatch
from tests.support.documents import problems_of, route, state_of
from tests.support.fleet import start_files
from tests.support.traefik import fleet


def by_name(objects: TraefikObjects) -> dict[str, Any]:
    return {one.name if one.section == "http.routers" else one.section: one.value for one in objects}


def test_fronts_lead_challenges_to_the_control_plane() -> None:
    """One router for each of the two entry points of the web, above every other, to the listener."""
    found = by_name(challenge_routes(fleet(), "http://127.0.0.1:7380"))
    web, secure = found["cloudlunacy__acme-challenge"], found["cloudlunacy__acme-challenge-tls"]
    assert [(one["entryPoints"], one.get("tls")) for one in (web, secure)] == [(["web"], None), (["websecure"], {})]
    assert web["rule"] == "PathPrefix(`/.well-known/acme-challenge/`)"
    assert found["http.services"]["loadBalancer"]["servers"] == [{"url": "http://127.0.0.1:7380"}]
    assert challenge_routes(fleet(), None) == ()


def test_no_route_comes_before_it() -> None:
    """The most exact rule that a route can have has a lower priority."""
    headers = [HeaderMatch(name=f"X-{number}", value="1") for number in range(16)]
    longest = PathMatch(exact="/" + "a" * 1023)
    assert max(match.priority for match in http_matches(["a.test"], [longest], headers, ["GET"])) < PRIORITY


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/acme-challenge",
        "/.well-known/acme-challenge/",
        "/.well-known/acme-challenge/token",
        "/.well-known/acme%2Dchallenge/token",
    ],
)
@pytest.mark.parametrize("kind", ["exact", "prefix"])
def test_no_route_may_name_it(path: str, kind: str) -> None:
    """Exact or as a prefix, plain or encoded: the route is refused, with the field and what to do."""
    assert is_reserved(PathMatch.model_validate({kind: path}))
    files = start_files() | {"routes/shop/web.yaml": route("web", paths=[{"prefix": "/"}, {kind: path}])}
    (problem,) = problems_of(state_of(files), files)  # type: ignore[arg-type]
    assert (problem.code, problem.line) == ("path-reserved", 1)
    assert "Use another path" in problem.hint


@pytest.mark.parametrize(
    "path", ["/", "/.well-known", "/.well-known/", "/.well-known/acme-challenges", "/x/.well-known/acme-challenge/"]
)
def test_what_is_above_or_beside_it_is_free(path: str) -> None:
    """A route may have all but the challenges."""
    assert not is_reserved(PathMatch(prefix=path))
