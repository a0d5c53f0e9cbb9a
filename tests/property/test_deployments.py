"""Plans of deployments, carried out on an engine in thought: whatever comes in whatever order, killed anywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.deployments.observed import Instance
from agent.deployments.workload import Key, Workload
from tests.support.model_engine import CutOff, World, workload

KEY = Key("shop", "web")
PORTS = [{"container": 8080, "host": 8081}]
IMAGES = ("web:good", "app:good", "web:exits", "web:sick", "web:slow", "web:missing")


def spec(image: str, strategy: str, **more: Any) -> Workload:
    rollout = {"strategy": strategy, "deadline": "60s"}
    return workload(image=image, ports=PORTS, rollout=rollout, **more)


wanted = st.builds(spec, st.sampled_from(IMAGES), st.sampled_from(["recreate", "blue-green"]))
histories = st.lists(st.tuples(wanted, st.integers(0, 30)), min_size=1, max_size=6)
"""What is wanted, and for how many rounds until the next comes."""


def settle(history: list[tuple[Workload, int]], *, cut_at: int | None = None) -> World:
    """Let every item run to its end, and kill the agent once on the way to the last."""
    world = World()
    for index, (one, _) in enumerate(history):
        world.want(one)
        world.cut_after = cut_at if index == len(history) - 1 else None
        try:
            world.run()
        except CutOff:
            world.restart()
            world.run()
    return world


@given(histories)
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(history: list[tuple[Workload, int]]) -> None:
    """Asked again when all is done, it plans nothing and changes no memory."""
    world = settle(history)
    if world.decisions[KEY].again_at is None:
        assert world.step() is False
        assert [decision.actions for decision in world.plan().values()] == [()]


@given(histories, st.integers(0, 25))
@settings(max_examples=100)
def test_killed_after_any_action_it_ends_the_same(history: list[tuple[Workload, int]], cut_at: int) -> None:
    """An agent that was killed anywhere on the way ends where one ends that was not."""
    whole, cut = settle(history), settle(history, cut_at=cut_at)
    assert cut.there(KEY) == whole.there(KEY)
    assert cut.memories[KEY].good == whole.memories[KEY].good
    assert cut.decisions[KEY].state == whole.decisions[KEY].state


@given(histories)
@settings(max_examples=100)
def test_what_is_lost_comes_back_where_it_was(history: list[tuple[Workload, int]]) -> None:
    """Whatever came before: when the engine has lost it, the good one is there again at the ports that fronts know."""
    world = settle(history)
    good = world.memories[KEY].good
    if good is None:
        return
    (before,) = world.engine.instances.values()
    world.engine.instances.clear()
    world.want(good)
    world.restart()
    world.run()
    (after,) = world.engine.instances.values()
    assert (after.digest, after.ports, after.state) == (good.digest, before.ports, "running")
    assert world.step() is False


@given(histories, wanted)
@settings(max_examples=100)
@example([(spec("web:slow", "blue-green"), 9)], spec("app:good", "recreate"))
def test_a_newer_item_takes_the_place_of_one_under_way(history: list[tuple[Workload, int]], last: Workload) -> None:
    """However far older items came, the last one ends as if it had come to what was good then."""
    world = World()
    for one, rounds in history:
        world.want(one)
        for _ in range(rounds):
            world.step()
            world.acknowledge()
            world.engine.now += 1.0
    good = world.memories[KEY].good if KEY in world.memories else None
    world.want(last)
    world.run()
    assert last.spec.image is not None
    found, decision = world.there(KEY), world.decisions[KEY]
    if last.spec.image.endswith(":good"):
        assert (found, decision.state) == ([(last.digest, "running", True)], "Applied")
    elif good is not None and good.digest != last.digest:
        assert (found, decision.state) == ([(good.digest, "running", True)], "Failed")
        assert "The last good version runs on." in decision.message
    else:
        assert decision.state == "Failed"
        assert len(found) <= 1


@given(histories)
@settings(max_examples=100)
def test_one_serves_or_one_at_a_time(history: list[tuple[Workload, int]]) -> None:
    """With blue-green what fronts ask never stops; with recreate two never run at once."""
    world = World()
    world.want(spec("first:good", "recreate"))
    world.run()

    def look() -> None:
        up = [one for one in world.engine.instances.values() if one.up]
        seen = world.acknowledged.get(KEY)
        if all(one.blue_green for one, _ in history):
            assert seen is not None
            assert seen.slot in {one.slot for one in up}
        if not any(one.blue_green for one, _ in history):
            assert len(up) <= 1

    world.looks.append(look)
    for one, rounds in history:
        world.want(one)
        for _ in range(rounds):
            world.step()
            world.acknowledge()
            world.engine.now += 1.0
    world.run()


@given(st.lists(st.tuples(st.integers(0, 49), st.sampled_from(IMAGES)), min_size=1, max_size=3), st.booleans())
@settings(max_examples=6)
def test_a_change_of_one_of_fifty_touches_one(changes: list[tuple[int, str]], blue_green: bool) -> None:
    """What was not changed is neither stopped nor made again, nor even asked for."""
    strategy = "blue-green" if blue_green else "recreate"

    def one(index: int, image: str) -> Workload:
        ports = [{"container": 8080, "host": 9000 + index}]
        return workload(f"app-{index}", image, ports=ports, rollout={"strategy": strategy, "deadline": "60s"})

    world = World()
    fleet = [one(index, "web:good") for index in range(50)]
    world.want(*fleet)
    world.run()
    assert {decision.state for decision in world.decisions.values()} == {"Applied"}
    # what cannot be had is tried again, so each is undone before the next
    steps = [step for number, bad in changes for step in ((number, bad), (number, "web:good"))]
    for index, image in steps:
        world.engine.done.clear()
        fleet[index] = one(index, image)
        world.want(*fleet)
        world.run()
        assert {action.key for action in world.engine.done} <= {fleet[index].key}
        assert (fleet[index].digest, "running", True) in world.there(fleet[index].key) or image != "web:good"


@given(histories, st.booleans(), st.booleans())
def test_what_goes_leaves_only_data_that_is_to_stay(
    history: list[tuple[Workload, int]], delete: bool, released: bool
) -> None:
    """After it is wanted no more nothing is left but its volumes, unless its policy and the document let those go."""
    world = World()
    for one, rounds in history:
        policy = "delete" if delete else "retain"
        volumes = [{"name": "data", "path": "/data"}]
        changed = spec(one.spec.image or "", one.spec.rollout.strategy, deletionPolicy=policy, volumes=volumes)
        world.want(changed)
        for _ in range(rounds):
            world.step()
            world.engine.now += 1.0
    had_volumes = bool(world.engine.volumes)
    world.want()
    world.released = frozenset({KEY} if released else ())
    world.run()
    assert (world.engine.instances, world.engine.networks, world.memories) == ({}, set(), {})
    assert bool(world.engine.volumes) is (had_volumes and not (delete and released))


def test_ports_never_collide_between_deployments() -> None:
    """Ten that roll blue-green at once, in a range that hardly suffices, get ports of their own."""
    fleet = [
        workload(f"app-{index}", "web:good", ports=[{"container": 80, "host": 20000 + index}]) for index in range(10)
    ]
    world = World()
    world.want(*fleet)
    world.run()
    rollout = {"strategy": "blue-green"}
    newer = [
        replace(one, spec=one.spec.model_copy(update={"image": "app:good", "rollout": _rollout(rollout)}))
        for one in fleet
    ]
    world.want(*newer)
    world.step()
    up_or_coming: list[Instance] = list(world.engine.instances.values())
    ports = [port for one in up_or_coming for port in one.ports.values()]
    assert (len(ports), len(set(ports))) == (20, 20)


def _rollout(found: dict[str, str]) -> Any:
    return workload(rollout=found).spec.rollout
