"""What a plan would have deleted is said, and a person has to agree to exactly that."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.desired.plan import make_plan
from reconciler.desired.state import State
from schemas.plan import DataLoss, Plan
from tests.support.documents import agent, deployment, document, fleet, settled, state_of, team

DB, WEB = "deployments/shop/db.yaml", "deployments/shop/web.yaml"
NAMES = ("vps-1", "vps-2")
OTHERS = {f"deployments/shop/other-{number}.yaml": number for number in range(3)}


def web(*agents: str, policy: str = "delete", **more: Any) -> bytes:
    volumes = [{"name": "uploads", "path": "/srv/uploads"}, {"name": "cache", "path": "/srv/cache"}]
    return deployment("web", *(agents or NAMES), volumes=volumes, deletionPolicy=policy, **more)


def files(**changes: bytes | None) -> dict[str, bytes | None]:
    return {
        "fleet.yaml": fleet(team("shop", agents=NAMES), deletionGuard={"percent": 100}),
        **{f"agents/{name}.yaml": agent(name, labels={"role": name}) for name in NAMES},
        **{path: deployment(f"other-{number}", "vps-1", port=9000 + number) for path, number in OTHERS.items()},
        WEB: web(),
        **changes,
    }


def plan(base: State, change: dict[str, bytes | None]) -> Plan:
    found = settled(base, change)
    assert not list(found.state.quarantined), found.state.findings
    return make_plan(base, found)


UPLOADS = ("volume uploads", "volume cache")


@pytest.mark.parametrize(
    ("change", "agents"),
    [
        ({WEB: None}, NAMES),
        ({WEB: web("vps-1")}, ("vps-2",)),
        ({WEB: None, "deployments/shop/web-2.yaml": deployment("web-2", *NAMES)}, NAMES),
        ({WEB: None, "deployments/shop/site.yaml": web().replace(b'"web"', b'"site"')}, NAMES),
        ({WEB: web("vps-1", policy="retain")}, ("vps-2",)),
    ],
    ids=["deleted", "taken from one agent", "replaced", "renamed", "retained too late for one agent"],
)
def test_what_would_be_lost_holds_the_plan(change: dict[str, bytes | None], agents: tuple[str, ...]) -> None:
    """Whichever way a deployment leaves an agent; the policy in service counts, for the agent has no other."""
    found = plan(state_of(files()), change)
    assert found.losses == tuple(DataLoss(agent=name, deployment="shop/web", data=UPLOADS) for name in agents)
    assert found.guard is not None
    assert found.guard.reason == "DataLoss"
    first = f"the plan deletes data: volume uploads and volume cache of shop/web on {agents[0]}"
    assert found.guard.message.startswith(first)


@pytest.mark.parametrize(
    "change",
    [
        {WEB: web(image="web:2")},
        {WEB: web(policy="retain")},
        {"deployments/shop/other-1.yaml": None},
    ],
    ids=["changed", "retained", "another one deleted"],
)
def test_what_loses_nothing_needs_nobody(change: dict[str, bytes | None]) -> None:
    """A deployment goes with its data kept unless it was said otherwise."""
    found = plan(state_of(files()), change)
    assert (found.losses, found.guard) == ((), None)


def test_delete_in_the_commit_that_deletes_loses_nothing() -> None:
    """Agents never see the policy; what the next generation says is that the deployment is gone."""
    base = state_of(files(**{WEB: web(policy="retain")}))
    assert plan(base, {WEB: None}).guard is None
    found = plan(base, {WEB: web("vps-1", policy="delete")})
    assert (found.losses, found.guard) == ((), None), "vps-2 has it with retain"


def test_a_database_is_called_so() -> None:
    """And volumes that a version had before go along, so that none are named is no reason to go on."""
    spec = {"type": "mongodb", "agents": ["vps-1"], "deletionPolicy": "delete", "mongodb": {"version": "7.0"}}
    bare = deployment("bare", "vps-2", port=8099, deletionPolicy="delete")
    base = state_of(files(**{DB: document("Deployment", "db", spec), "deployments/shop/bare.yaml": bare}))
    found = plan(base, {DB: None, "deployments/shop/bare.yaml": None})
    assert {(one.deployment, one.data) for one in found.losses} == {
        ("shop/db", ("the database",)),
        ("shop/bare", ("volumes of earlier versions",)),
    }


def test_an_agent_that_leaves_its_label_loses_what_the_label_brought() -> None:
    """The deployment's own file is not even touched."""
    selecting = web().replace(b'"agents": ["vps-1", "vps-2"]', b'"agentSelector": {"role": "vps-2"}')
    assert b"agentSelector" in selecting
    base = state_of(files(**{WEB: selecting}))
    found = plan(base, {"agents/vps-2.yaml": agent("vps-2", labels={"role": "spare"})})
    assert [one.agent for one in found.losses] == ["vps-2"]


def test_an_agent_that_goes_itself_deletes_nothing() -> None:
    """It may not connect any more, so nobody tells it."""
    found = plan(state_of(files(**{WEB: web("vps-2")})), {WEB: None, "agents/vps-2.yaml": None})
    assert (found.losses, found.guard) == ((), None)


def test_the_approval_is_for_exactly_that_data() -> None:
    """Another loss is another checksum; and where too much is deleted anyway, the data is said as well."""
    base = state_of(files())
    kept = state_of(files(**{WEB: web(policy="retain")}))
    one, other = plan(base, {WEB: None}), plan(kept, {WEB: None})
    assert one.checksum != other.checksum
    guarded = {**files(), "fleet.yaml": fleet(team("shop", agents=NAMES), deletionGuard={"percent": 1, "minimum": 1})}
    found = plan(state_of(guarded), {WEB: None})
    assert found.guard is not None
    assert found.guard.reason == "DeletionGuard"
    assert "more than 1 % need a person; and the plan deletes data: volume uploads" in found.guard.message
