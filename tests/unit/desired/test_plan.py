"""What publishing would change, and when a person must agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from reconciler.desired.plan import make_plan
from reconciler.desired.settle import Settled
from reconciler.desired.state import State
from schemas.plan import Plan
from tests.support.documents import agent, deployment, fleet, route, settled, state_of, team

WEB: Final = "routes/shop/web.yaml"
FILES: Final = {
    "fleet.yaml": fleet(team("shop", agents=["vps-1", "vps-2"])),
    "agents/vps-1.yaml": agent("vps-1"),
    "agents/vps-2.yaml": agent("vps-2"),
    WEB: route("web"),
}


def plan_of(change: dict[str, bytes | None], files: dict[str, bytes] = FILES) -> Plan:
    state = state_of(files)
    return make_plan(state, settled(state, change, "b" * 40))


def test_the_first_plan_creates_everything() -> None:
    """Objects sorted by kind, team and name; each agent gets its document."""
    plan = make_plan(State(), settled(State(), FILES))
    assert [(one.action, one.path) for one in plan.changes] == [
        ("create", "agents/vps-1.yaml"),
        ("create", "agents/vps-2.yaml"),
        ("create", "fleet.yaml"),
        ("create", WEB),
    ]
    assert [(one.name, one.added) for one in plan.agents] == [
        ("vps-1", ("Agent/vps-1",)),
        ("vps-2", ("Agent/vps-2",)),
    ]
    assert plan.base == ""
    assert plan.guard is None


def test_an_update_names_the_fields_that_differ() -> None:
    """As deep as the difference lies, defaults resolved."""
    change = route("web", "web.app.cloudlunacy.test", backends=[{"agent": "vps-2", "port": 8081, "weight": 2}])
    (one,) = plan_of({WEB: change}).changes
    assert (one.action, one.kind, one.team, one.name, one.path) == ("update", "Route", "shop", "web", WEB)
    assert one.fields == ("spec.backends[0].agent", "spec.backends[0].weight", "spec.hostnames")


def test_what_changes_nothing_is_an_empty_plan() -> None:
    """A comment, a broken file, a file that is no object."""
    for change in ({WEB: FILES[WEB] + b"\n# note"}, {WEB: b"a: ["}, {"routes/shop/web.yml": b""}, {}):
        assert plan_of(change).empty  # type: ignore[arg-type]


def test_an_agents_document_is_told_item_by_item() -> None:
    """What comes, changes and goes, for each agent that is concerned and no other."""
    files = {**FILES, "deployments/shop/web.yaml": deployment("web", "vps-1")}
    (one,) = plan_of({"deployments/shop/web.yaml": deployment("web", "vps-1", port=8082)}, files).agents
    assert (one.name, one.added, one.changed, one.removed) == ("vps-1", (), ("Deployment/shop/web",), ())
    moved = plan_of({"deployments/shop/web.yaml": deployment("web", "vps-2")}, files).agents
    assert [(one.name, one.added, one.removed) for one in moved] == [
        ("vps-1", (), ("Deployment/shop/web",)),
        ("vps-2", ("Deployment/shop/web",), ()),
    ]


def test_a_label_moves_a_deployment() -> None:
    """A changed agent shows what its selectors do."""
    files = {**FILES, "deployments/shop/web.yaml": deployment("web", agentSelector={"a": "b"})}
    (one,) = plan_of({"agents/vps-2.yaml": agent("vps-2", labels={"a": "b"})}, files).agents
    assert (one.name, one.added, one.changed) == ("vps-2", ("Deployment/shop/web",), ("Agent/vps-2",))


def test_a_last_good_version_that_meets_new_surroundings_is_an_update() -> None:
    """The same object leads elsewhere than before, and nobody else's file explains it."""
    broken = settled(state_of(FILES), {WEB: b"a: [", "agents/vps-1.yaml": agent("vps-1", address="10.0.0.9")}).state
    plan = make_plan(broken, settled(broken, {WEB: FILES[WEB]}))
    assert [(one.action, one.path, one.fields) for one in plan.changes] == [("update", WEB, ())]


def test_the_checksum_stands_for_exactly_one_plan() -> None:
    """The same from the same, another for another change, base or revision."""
    one, other = route("web", "a.app.cloudlunacy.test"), route("web", "b.app.cloudlunacy.test")
    state = state_of(FILES)
    plans = [
        make_plan(state, settled(state, {WEB: one}, "b" * 40)),
        make_plan(state, settled(state, {WEB: other}, "b" * 40)),
        make_plan(state, settled(state, {WEB: one}, "c" * 40)),
        make_plan(replace(state, revision="d" * 40), settled(state, {WEB: one}, "b" * 40)),
    ]
    assert len({plan.checksum for plan in plans}) == 4
    assert plan_of({WEB: one}).checksum == plans[0].checksum


def many(count: int, **spec: object) -> dict[str, bytes]:
    """``count`` objects in all: fleet, agent, and routes."""
    files = {"fleet.yaml": fleet(team("shop", agents=["vps-1"]), **spec), "agents/vps-1.yaml": agent("vps-1")}
    return files | {f"routes/shop/r{number}.yaml": route(f"r{number}") for number in range(count - 2)}


def deleting(count: int, total: int = 100, **spec: object) -> Plan:
    return plan_of({f"routes/shop/r{number}.yaml": None for number in range(count)}, many(total, **spec))


@pytest.mark.parametrize(("count", "held"), [(30, False), (31, True), (98, True)])
def test_deleting_more_than_thirty_percent_needs_a_person(count: int, held: bool) -> None:
    """30 % passes, 31 % and everything of a kind do not."""
    plan = deleting(count)
    assert (plan.guard is not None) is held
    if plan.guard is not None:
        assert plan.guard.reason == "DeletionGuard"


def test_small_fleets_may_delete_freely() -> None:
    """Below the minimum of ten objects a percentage says nothing."""
    assert deleting(4, 9).guard is None
    assert deleting(4, 10).guard is not None


def test_the_last_of_a_kind_needs_a_person() -> None:
    """However small the fleet is."""
    guard = deleting(1, 3).guard
    assert guard is not None
    assert guard.message == "the plan deletes every object of a kind: Route (1)"


def test_an_empty_tree_is_held() -> None:
    """Nothing of it is ever published without a person."""
    state = state_of(FILES)
    assert make_plan(state, settled(state, dict.fromkeys(FILES))).guard is not None


def test_the_guard_that_is_published_counts() -> None:
    """A revision cannot loosen the guard that it is held by."""
    files = many(100)
    state = state_of(files)
    loose = fleet(team("shop", agents=["vps-1"]), deletionGuard={"percent": 100, "minimum": 1})
    change: dict[str, bytes | None] = {f"routes/shop/r{number}.yaml": None for number in range(50)}
    assert make_plan(state, settled(state, {**change, "fleet.yaml": loose})).guard is not None


def test_the_guard_is_set_by_the_fleet() -> None:
    """Percent and minimum are the fleet's."""
    assert deleting(50, deletionGuard={"percent": 50, "minimum": 10}).guard is None
    assert deleting(11, deletionGuard={"percent": 10, "minimum": 10}).guard is not None


def test_a_plan_of_nothing_on_nothing_is_empty() -> None:
    """No base, no files."""
    plan = make_plan(State(), Settled(State("a" * 40), frozenset()))
    assert plan.empty
    assert plan.guard is None
