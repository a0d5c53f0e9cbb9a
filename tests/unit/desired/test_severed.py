"""Which backends lose a way in."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.desired.severed import lost_ways
from reconciler.desired.state import State
from tests.support import documents

ALLOW = {"ipAllowList": {"ranges": ["192.0.2.0/24"]}}
BACKENDS = [{"agent": "vps-1", "port": 27117}]
FILES: dict[str, bytes | None] = {
    "fleet.yaml": documents.fleet(entryPoints={"tcp": {"events": "events"}}),
    "agents/vps-1.yaml": documents.agent("vps-1"),
    "agents/vps-2.yaml": documents.agent("vps-2", address="192.0.2.7"),
    "routes/shop/web.yaml": documents.route(
        "web", "web.app.cloudlunacy.test", backends=[{"agent": "vps-1", "port": 8081}]
    ),
}


def database(*backends: Any, **spec: Any) -> bytes:
    return documents.document("Route", "db", {"type": "mongodb", "backends": backends or BACKENDS, **spec})


BEFORE = FILES | {"routes/shop/db.yaml": database({"agent": "vps-1", "port": 27117}, {"agent": "vps-2", "port": 27117})}


def lost(before: dict[str, bytes | None], after: dict[str, bytes | None]) -> tuple[str, ...]:
    first = documents.state_of(before)
    changed = {path: after.get(path) for path in {*before, *after} if before.get(path) != after.get(path)}
    return lost_ways(first, documents.settled(first, changed).state)


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        ("routes/shop/db.yaml", None, ("127.0.0.1:27117", "192.0.2.7:27117")),
        ("routes/shop/db.yaml", database(), ("192.0.2.7:27117",)),
        ("routes/shop/db.yaml", database(BACKENDS[0] | {"weight": 0}, {"agent": "vps-2", "port": 27117}), ()),
        ("routes/shop/db.yaml", database(*BACKENDS, middlewares=[ALLOW]), ("127.0.0.1:27117", "192.0.2.7:27117")),
        ("agents/vps-2.yaml", documents.agent("vps-2", address="192.0.2.7", state="quarantined"), ("192.0.2.7:27117",)),
        ("agents/vps-2.yaml", documents.agent("vps-2", address="192.0.2.7", state="cordoned"), ()),
        ("agents/vps-2.yaml", documents.agent("vps-2", address="192.0.2.8"), ("192.0.2.7:27117",)),
        ("agents/vps-2.yaml", None, ("192.0.2.7:27117",)),
        ("routes/shop/web.yaml", None, ()),
    ],
)
def test_what_is_taken_away_is_named(path: str, content: bytes | None, expected: tuple[str, ...]) -> None:
    """A route, an agent, an address, who may come; not a weight, a cordon or a route of HTTP."""
    assert lost(BEFORE, BEFORE | {path: content}) == expected


def test_what_comes_takes_nothing_away() -> None:
    """Another route to the same backend, and a state that is the same."""
    second = documents.document(
        "Route",
        "raw",
        {"type": "tcp", "entryPoint": "events", "tls": {"mode": "none"}, "backends": BACKENDS},
    )
    assert lost(BEFORE, BEFORE | {"routes/shop/raw.yaml": second}) == ()
    assert lost(BEFORE | {"routes/shop/raw.yaml": second}, BEFORE) == ("127.0.0.1:27117",)
    assert lost_ways(State(), documents.state_of(BEFORE)) == ()


def test_a_last_good_version_takes_nothing_away() -> None:
    """A route whose deployment is gone, or whose newest version is wrong, leads where it did."""
    mongodb = {"type": "mongodb", "mongodb": {"version": "6.0"}}
    deployment = documents.document(
        "Deployment",
        "orders",
        {**mongodb, "agents": ["vps-1"], "ports": [{"container": 27017, "host": 27117}]},
    )
    before = BEFORE | {
        "deployments/shop/orders.yaml": deployment,
        "routes/shop/db.yaml": database({"deployment": "orders"}),
    }
    assert lost(before, before | {"deployments/shop/orders.yaml": None}) == ()
    assert lost(before, before | {"routes/shop/db.yaml": database({"deployment": "odrers"})}) == ()
