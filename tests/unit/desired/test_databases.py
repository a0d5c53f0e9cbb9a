"""What must hold of databases that agents run."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.desired.items import AgentItems
from reconciler.desired.state import State
from schemas.objects import ObjectKey
from tests.support import documents
from tests.support.documents import codes, problems_of, settled, state_of
from tests.unit.mongodb.test_places import USER, deployment

PATH = "deployments/shop/orders.yaml"
KEY = ObjectKey("Deployment", "shop", "orders")


def orders(version: str = "6.0", *, users: Any = (USER,), spec: Any = None, **mongodb: Any) -> bytes:
    return deployment("orders", "vps-1", mongodb={"version": version, "users": list(users), **mongodb}, **(spec or {}))


def start(**more: bytes) -> State:
    return state_of({
        "fleet.yaml": documents.fleet(documents.team("shop", agents=["vps-1"])),
        "agents/vps-1.yaml": documents.agent("vps-1"),
        "secrets/shop/db.yaml": documents.secret("db", "password"),
        PATH: orders(),
        **more,
    })  # fmt: skip


def after(document: bytes) -> State:
    return settled(start(), {PATH: document}).state


@pytest.mark.parametrize("version", ["6.0", "6.0.27", "7.0"])
def test_the_next_release_is_taken(version: str) -> None:
    """Patch levels and one major release up go into service."""
    assert after(orders(version)).findings == {}


@pytest.mark.parametrize("version", ["5.0", "8.0"])
def test_what_mongodb_refuses_is_refused_in_the_plan(version: str) -> None:
    """The file is told so at its line, with the step that is allowed, and the version in service stays."""
    document = orders(version)
    state = after(document)
    (problem,) = [one for one in problems_of(state, {PATH: document}) if one.file == PATH]
    assert (problem.code, problem.severity) == ("mongodb-upgrade-refused", "error")
    assert b"version" in document.splitlines()[problem.line - 1]
    (item,) = [one for one in AgentItems(state).of("vps-1") if one.id == str(KEY)]
    assert item.spec["mongodb"]["version"] == "6.0"


def test_data_does_not_move_to_another_runtime() -> None:
    """A runtime once written is kept; to leave it open again changes nothing."""
    state = start(**{PATH: orders(runtime="container")})
    assert codes(settled(state, {PATH: orders(runtime="process")}).state) == {PATH: ["mongodb-moves"]}
    assert settled(state, {PATH: orders()}).state.findings == {}


@pytest.mark.parametrize(("wanted", "code"), [("5.0", "mongodb-upgrade-refused"), ("6.0", "mongodb-moves")])
def test_a_version_that_never_ran_is_replaced_by_removing_it(wanted: str, code: str) -> None:
    """The hint says so, and the way leads there: what was in service counts no longer."""
    state = start(**{PATH: orders(runtime="container")})
    document = orders(wanted, runtime="process" if wanted == "6.0" else "container")
    (problem,) = problems_of(settled(state, {PATH: document}).state, {PATH: document})
    assert (problem.code, "add it again" in problem.hint) == (code, True)
    removed = settled(state, {PATH: None}).state
    assert settled(removed, {PATH: document}).state.findings == {}


TWO_PORTS = [{"container": 27017, "host": 27117}, {"container": 27018, "host": 27118}]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (orders(spec={"rollout": {"strategy": "blue-green"}}), "mongodb-one-at-a-time"),
        (orders(spec={"ports": TWO_PORTS}), "mongodb-one-port"),
        (orders("4.4"), "mongodb-too-old"),
        (orders(users=[USER, USER]), "mongodb-user-reserved"),
        (orders(users=[{**USER, "name": "cloudlunacy-agent", "database": "admin"}]), "mongodb-user-reserved"),
    ],
)
def test_what_makes_no_sense_for_a_database_is_refused(document: bytes, code: str) -> None:
    """Each with a code of its own."""
    assert codes(start(**{PATH: document})) == {PATH: [code]}


def test_a_database_always_has_a_certificate() -> None:
    """Its agent is told of one although the file does not ask."""
    assert "Certificate/shop/orders" in {one.id for one in AgentItems(start()).of("vps-1")}
