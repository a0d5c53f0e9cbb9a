"""What objects claim and name, and when two claims conflict."""

from __future__ import annotations

import itertools
import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.claims import (
    ANY,
    Claim,
    ClaimIndex,
    HostMatch,
    claims_from_json,
    claims_of,
    claims_to_json,
    covered,
    references_of,
)
from schemas.fleet import Fleet
from schemas.names import covers
from schemas.objects import ObjectKey
from tests.support.documents import DOMAIN, agent, certificate, deployment, document, fleet, parsed, route, team

FLEET: Final = parsed("fleet.yaml", fleet(team("shop"), entryPoints={"tcp": {"smtp": "mail"}})).object
A: Final = ObjectKey("Route", "shop", "a")
B: Final = ObjectKey("Route", "shop", "b")
FOREIGN: Final = ObjectKey("Route", "data", "c")


def claims(path: str, content: bytes, agents: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    found = parsed(path, content)
    assert found.key is not None
    assert found.object is not None
    assert isinstance(FLEET, Fleet)
    return [(one.scope, one.pattern, one.entry_point) for one in claims_of(found.key, found.object, FLEET, agents)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (route("a", "x.test"), [("http", "x.test", "web")]),
        (
            route("a", "x.test", "*.y.test", tls={}),
            [("http", "x.test", "websecure"), ("http", "*.y.test", "websecure")],
        ),
        (route("a"), [("http", f"a.app.{DOMAIN}", "web")]),
        (
            document("Route", "a", {"type": "mongodb", "backends": [{"agent": "vps-1", "port": 1}]}),
            [("tcp:mongodb", f"vps-1.mongodb.{DOMAIN}", "mongodb")],
        ),
        (route("a", "x.test", type="tcp", entryPoint="smtp", tls={}), [("tcp:mail", "x.test", "mail")]),
        (route("a", type="tcp", entryPoint="smtp"), [("tcp:mail", ANY, "mail")]),
    ],
)
def test_routes_claim_hosts(content: bytes, expected: list[tuple[str, str, str]]) -> None:
    """Defaults are resolved; a TCP route without TLS owns the whole entry point."""
    assert claims("routes/shop/a.yaml", content, ("vps-1",)) == expected


def test_other_kinds_claim_ports_names_and_keys() -> None:
    """A deployment each host port and its directory on each agent, a certificate its names, an agent its key."""
    assert claims("deployments/shop/d.yaml", deployment("d", "x", "y"), ("x", "y")) == [
        ("port:x", "8081", ""),
        ("port:y", "8081", ""),
    ]
    content = deployment("d", "x", tls={"directory": "/etc/tls/D"})
    assert claims("deployments/shop/d.yaml", content, ("x",))[1:] == [("directory:x", "/etc/tls/d", "")]
    assert claims("certificates/c.yaml", certificate("c", "x.test")) == [("certificate", "x.test", "")]
    assert claims("agents/a.yaml", agent("a")) == []
    key = "k" * 43
    assert claims("agents/a.yaml", agent("a", identity={"thumbprint": key})) == [("identity", key, "")]


def test_every_name_in_an_object_is_a_reference() -> None:
    """With the field that names it."""
    content = route(
        "a",
        backends=[{"agent": "vps-1", "port": 1}, {"deployment": "d"}],
        tls={"certificate": "c"},
        middlewares=[
            {"basicAuth": {"secret": {"name": "s", "key": "k"}}},
            {"forwardAuth": {"address": {"deployment": "auth"}}},
            {"maintenance": {"page": {"agent": "vps-2", "port": 2}}},
        ],
    )
    found = parsed("routes/shop/a.yaml", content)
    assert found.object is not None
    assert [(str(one.key), one.field[1:]) for one in references_of(A, found.object)] == [
        ("Agent/vps-1", ("backends", 0, "agent")),
        ("Deployment/shop/d", ("backends", 1, "deployment")),
        ("Certificate/c", ("tls", "certificate")),
        ("Secret/shop/s", ("middlewares", 0, "basicAuth", "secret", "name")),
        ("Deployment/shop/auth", ("middlewares", 1, "forwardAuth", "address", "deployment")),
        ("Agent/vps-2", ("middlewares", 2, "maintenance", "page", "agent")),
    ]


def http(owner: ObjectKey, pattern: str, *paths: str, entry_point: str = "web", **match: Any) -> Claim:
    found = frozenset(("prefix", path) for path in paths or ("/",))
    return Claim("http", pattern, owner, entry_point, HostMatch(found, **match))


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        (http(A, "x.test"), http(B, "x.test"), True),
        (http(A, "x.test"), http(A, "x.test"), False),
        (http(A, "x.test"), http(B, "x.test", entry_point="websecure"), False),
        (http(A, "x.test"), http(FOREIGN, "x.test", entry_point="websecure"), True),
        (http(A, "x.test", "/a"), http(B, "x.test", "/b"), False),
        (http(A, "x.test", "/a", "/b"), http(B, "x.test", "/b", "/c"), True),
        (http(A, "x.test", "/a"), http(FOREIGN, "x.test", "/b"), True),
        (http(A, "x.test", methods=frozenset({"GET"})), http(B, "x.test", methods=frozenset({"PUT"})), False),
        (http(A, "x.test", methods=frozenset({"GET"})), http(B, "x.test"), True),
        (http(A, "x.test", headers=frozenset({("a", "1")})), http(B, "x.test"), False),
        (http(A, "*.test"), http(B, "x.test"), False),
        (http(A, "*.test"), http(FOREIGN, "x.test"), True),
        (http(A, "*.test"), http(FOREIGN, "y.x.test"), False),
        (http(A, "*.x.test"), http(FOREIGN, "*.test"), False),
        (Claim("tcp:m", "x.test", A), Claim("tcp:m", "x.test", B), True),
        (Claim("tcp:m", "x.test", A), Claim("tcp:n", "x.test", B), False),
        (Claim("tcp:m", ANY, A), Claim("tcp:m", "x.test", B), True),
        (Claim("tcp:m", "*.test", A), Claim("tcp:m", "x.test", B), False),
        (Claim("tcp:m", "*.test", A), Claim("tcp:m", "x.test", FOREIGN), True),
        (Claim("port:a", "1", A), Claim("port:a", "1", FOREIGN), True),
        (Claim("port:a", "1", A), Claim("port:b", "1", FOREIGN), False),
        (Claim("directory:a", "/etc/x", A), Claim("directory:a", "/etc/x", B), True),
        (Claim("directory:a", "/etc/x", A), Claim("directory:b", "/etc/x", FOREIGN), False),
        (Claim("directory:a", "/etc/x", A), Claim("directory:a", "/etc/x/sub/y", FOREIGN), True),
        (Claim("directory:a", "/etc/x", A), Claim("directory:a", "/etc/x.7/y", FOREIGN), True),
        (Claim("directory:a", "/etc/x", A), Claim("directory:a", "/etc/xy", FOREIGN), False),
        (Claim("directory:a", "/pg/9.5/x", A), Claim("directory:a", "/pg/9.6/x", FOREIGN), False),
    ],
)
def test_when_two_claims_conflict(one: Claim, other: Claim, conflict: bool) -> None:
    """A host belongs to one team; within it, matches that differ may share the host. Order does not matter."""
    assert one.conflicts(other) is conflict
    assert other.conflicts(one) is conflict


OWNERS: Final = [ObjectKey("Route", owner, name) for owner in ("shop", "data") for name in ("a", "b", "c")]
PATTERNS: Final = ["x.test", "y.test", "*.test", "*.x.test", "z.x.test"]
CLAIMS: Final = st.one_of(
    st.builds(
        http,
        st.sampled_from(OWNERS),
        st.sampled_from(PATTERNS),
        st.sampled_from(["/", "/a"]),
        entry_point=st.sampled_from(["web", "websecure"]),
        methods=st.sampled_from([frozenset[str](), frozenset({"GET"})]),
    ),
    st.builds(Claim, st.sampled_from(["tcp:m", "tcp:n"]), st.sampled_from([*PATTERNS, ANY]), st.sampled_from(OWNERS)),
    st.builds(Claim, st.just("port:a"), st.sampled_from(["1", "2"]), st.sampled_from(OWNERS)),
    st.builds(
        Claim,
        st.sampled_from(["directory:a", "directory:b"]),
        st.sampled_from(["/a", "/a/b", "/a/b/c", "/a/bc", "/a/b.1/c", "/a.2/b.1/c", "/a.2/d"]),
        st.sampled_from(OWNERS),
    ),
)


@given(st.lists(CLAIMS, unique=True, max_size=20), st.data())
def test_the_index_finds_exactly_the_claims_that_conflict(everything: list[Claim], data: st.DataObject) -> None:
    """However claims came and went, and whatever copies were made, look-ups agree with comparing all with all."""
    index = ClaimIndex()
    index.add(tuple(everything))
    gone = data.draw(st.lists(st.sampled_from(everything), unique=True)) if everything else []
    copy = index.copy()
    for one in gone:
        copy.remove((one,))
    for known, there in ((index, everything), (copy, [one for one in everything if one not in gone])):
        for claim in everything:
            assert set(known.conflicting(claim)) == {other for other in there if claim.conflicts(other)}
            assert len(known.conflicting(claim)) == len(set(known.conflicting(claim)))
            assert set(known.at(claim.scope, claim.pattern)) == {one for one in there if one.thing == claim.thing}


@given(st.lists(CLAIMS, max_size=5))
def test_claims_survive_the_store(everything: list[Claim]) -> None:
    """JSON and back is the same."""
    assert claims_from_json(json.loads(json.dumps(claims_to_json(everything)))) == tuple(everything)


def test_covered_agrees_with_covers() -> None:
    """Two look-ups in a set say what asking every pattern says."""
    for host, pattern in itertools.product(PATTERNS, PATTERNS):
        assert covered(host, {pattern}) is covers(pattern, host)
