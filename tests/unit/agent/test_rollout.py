"""The way of one deployment, told step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.deployments.actions import Create, Keep, Remove, Start, Stop
from agent.deployments.health import Health, Probe, Rules, Track
from agent.deployments.observed import Instance, Observed
from agent.deployments.planning import PortRange, Situation, plan
from agent.deployments.rollout import Acknowledged, Memory
from agent.deployments.workload import (
    InvalidItem,
    Key,
    Workload,
    engine_name,
    key_of,
    owner_labels,
    owner_of,
    workload_from_json,
    workload_of,
    workload_to_json,
)
from schemas.session import Item, digest_of
from tests.support.model_engine import CutOff, World, workload

KEY = Key("shop", "web")
PORTS = [{"container": 8080, "host": 8081}]


def _wanted(image: str, strategy: str = "recreate", **more: Any) -> Workload:
    return workload(image=image, ports=PORTS, rollout={"strategy": strategy, "deadline": "60s"}, **more)


def _settled(one: Workload) -> World:
    world = World()
    world.want(one)
    world.run()
    world.engine.done.clear()
    return world


def _names(world: World) -> list[str]:
    return [type(action).__name__ for action in world.engine.done]


def test_recreate_sets_up_before_it_stops() -> None:
    """What takes long, and may fail, is done while the old one still serves."""
    world = _settled(_wanted("web:good"))
    world.want(_wanted("app:good"))
    world.run()
    assert _names(world) == ["Create", "Stop", "Start", "Keep", "Remove"]


def test_blue_green_waits_for_the_fronts() -> None:
    """The old one is stopped only after every front asks the new one, and some time more."""
    world = _settled(_wanted("web:good", "blue-green"))
    world.want(_wanted("app:good", "blue-green"))
    for _ in range(10):
        world.step()
        world.engine.now += 1.0
    assert [type(action) for action in world.engine.done] == [Create, Start, Keep]
    decision = world.decisions[KEY]
    assert (decision.state, decision.reason, decision.serving) == ("Progressing", "Switching", "b")
    ports = sorted(port for one in world.engine.instances.values() for port in one.ports.values())
    assert ports[0] == 8081
    assert 20000 <= ports[1] <= 29999
    world.acknowledged[KEY] = Acknowledged("b", world.engine.now)
    world.step()
    assert (world.decisions[KEY].reason, world.decisions[KEY].again_at) == ("Draining", world.engine.now + 5.0)
    world.engine.now += 5.0
    world.step()
    assert [type(action) for action in world.engine.done[3:]] == [Stop, Remove]


def test_many_versions_at_once_find_room() -> None:
    """With fronts that are slow, a fourth version waits until they know the third; then it goes its way."""
    world = _settled(_wanted("v1:good", "blue-green"))
    for version in ("v2:good", "v3:good", "v4:good"):
        world.want(_wanted(version, "blue-green"))
        for _ in range(10):
            world.step()
            world.engine.now += 1.0
    assert len(world.engine.instances) == 3
    assert world.decisions[KEY].reason == "WaitingForRoom"
    world.run()
    assert world.there(KEY) == [(_wanted("v4:good").digest, "running", True)]


@pytest.mark.parametrize(
    ("image", "reason", "says"),
    [
        ("app:exits", "Exited", "It exited with 1"),
        ("app:sick", "Unhealthy", "It is not healthy: HTTP 500 from /."),
        ("app:slow", "DeadlineExceeded", "It did not become healthy within 60s"),
        ("app:missing", "PullFailed", "image app:missing cannot be pulled."),
    ],
)
def test_a_failure_brings_the_last_good_one_back(image: str, reason: str, says: str) -> None:
    """It says why, and the last good one runs."""
    good = _wanted("web:good")
    world = _settled(good)
    world.want(_wanted(image))
    world.run()
    decision = world.decisions[KEY]
    assert (decision.state, decision.reason) == ("Failed", reason)
    assert decision.message.startswith(says)
    assert decision.message.endswith("The last good version runs on.")
    assert world.there(KEY) == [(good.digest, "running", True)]


def test_the_first_version_is_tried_again() -> None:
    """Without a last good one an instance that ended is started again, later and later."""
    world = World()
    world.want(_wanted("app:exits"))
    world.run(60)
    starts = [action for action in world.engine.done if isinstance(action, Start)]
    assert len(starts) >= 3
    assert not any(isinstance(action, Keep | Remove) for action in world.engine.done)


def test_what_does_not_make_an_instance_restarts_nothing() -> None:
    """Another health check, roll-out or deletion policy is taken over in silence."""
    world = _settled(_wanted("web:good"))
    changed = _wanted("web:good", "blue-green", deletionPolicy="delete", healthCheck={"tcp": {"port": 8080}})
    world.want(changed)
    world.run()
    assert world.engine.done == []
    assert world.memories[KEY] == Memory(good=changed, delete_data=True, type="container", ports=((8080, 8081),))


def test_another_health_check_is_another_chance() -> None:
    """What failed is tried again when what it was judged by has changed."""
    world = _settled(_wanted("web:good"))
    world.want(_wanted("app:slow"))
    world.run()
    world.engine.done.clear()
    world.want(_wanted("app:slow", deletionPolicy="delete"))
    world.run()
    assert world.engine.done == []
    world.want(_wanted("app:slow", healthCheck={"tcp": {"port": 8080}}))
    world.step()
    assert _names(world) == ["Create"]


def test_a_candidate_that_was_killed_is_started_again() -> None:
    """The end of the engine is not held against a new version."""
    world = _settled(_wanted("web:good"))
    world.want(_wanted("app:good"))
    while not any(isinstance(action, Start) for action in world.engine.done):
        world.step()
    candidate = next(one for one in world.engine.instances.values() if one.up)
    world.engine.carry_out(Stop(candidate))
    world.run()
    assert world.decisions[KEY].state == "Applied"


def test_what_an_earlier_way_left_behind_is_not_judged() -> None:
    """A candidate that was stopped because something else was wanted, by an agent that was killed before it could
    remove it, ended well: when its version is wanted again it is made anew, and not taken for one that failed."""
    world = _settled(_wanted("web:good"))
    world.want(_wanted("app:good"))
    while not any(isinstance(action, Start) for action in world.engine.done):
        world.step()
    candidate = next(one for one in world.engine.instances.values() if one.up)
    world.want(_wanted("web:good"))
    world.cut_after = 2  # the memory, the request to end
    with pytest.raises(CutOff):
        world.run()
    ended = world.engine.instances[candidate.id]
    assert ended.state == "exited"
    world.engine.instances[candidate.id] = replace(ended, exit_code=0, killed=False)
    world.restart()
    world.want(_wanted("app:good"))
    world.run()
    assert (world.decisions[KEY].state, world.decisions[KEY].reason) == ("Applied", "Running")


def test_memory_lost_adopts_what_was_kept() -> None:
    """Without its file the agent takes what is wanted and was good for good, and touches nothing."""
    world = _settled(_wanted("web:good"))
    world.memories.clear()
    world.run()
    assert world.engine.done == []
    assert world.memories[KEY].good == _wanted("web:good")


def _served_elsewhere(**more: Any) -> tuple[World, int]:
    """Return a world where a blue-green roll-out has left the good one at another port, and that port."""
    world = _settled(_wanted("web:good", "blue-green"))
    world.want(_wanted("app:good", "blue-green", **more))
    world.run()
    port = _port(world)
    assert 20000 <= port <= 29999
    return world, port


def _port(world: World) -> int:
    (one,) = world.engine.instances.values()
    return one.ports[8080]


def test_what_is_lost_comes_back_where_it_served_last() -> None:
    """Fronts look for it there, and while the control plane is away nobody tells them of another port."""
    world, port = _served_elsewhere()
    for _ in range(2):
        world.engine.instances.clear()
        world.restart()
        world.run()
        assert (_port(world), world.there(KEY)[0][1:]) == (port, ("running", True))


@pytest.mark.parametrize("image", ["bad:exits", "bad:sick"])
def test_a_return_to_what_is_lost_leads_where_it_served_last(image: str) -> None:
    """Also where a version that failed has the port: nobody asks that one."""
    world, port = _served_elsewhere()
    for serving in (port, 8081):
        world.engine.instances.clear()
        world.want(_wanted(image, "blue-green"))
        world.run()
        assert (world.decisions[KEY].state, _port(world)) == ("Failed", serving)
        # another time at the declared port
        world.engine.instances.clear()
        world.memories[KEY] = replace(world.memories[KEY], ports=(), failure=None)
        world.want(_wanted("app:good", "blue-green"))
        world.run()


def test_until_fronts_know_the_new_one_the_former_port_counts() -> None:
    """When both are lost in the middle of a switch, fronts still lead to the former one."""
    world = _settled(_wanted("web:good", "blue-green"))
    world.want(_wanted("app:good", "blue-green"))
    for _ in range(10):
        world.step()
        world.engine.now += 1.0
    assert world.decisions[KEY].reason == "Switching"
    world.engine.instances.clear()
    world.run()
    assert _port(world) == 8081


def test_a_former_port_that_another_claims_is_left_to_it() -> None:
    """Then the declared one is as good as any."""
    world, port = _served_elsewhere()
    world.engine.instances.clear()
    other = workload("api", "api:good", ports=[{"container": 80, "host": port}])
    world.want(_wanted("app:good", "blue-green"), other)
    world.run()
    ports = {one.key.name: next(iter(one.ports.values())) for one in world.engine.instances.values()}
    assert ports == {"web": 8081, "api": port}


def test_a_former_port_is_kept_free_for_its_return() -> None:
    """Nobody else is given it meanwhile, and outside the range or where fronts follow no ports it is not taken."""
    world, port = _served_elsewhere()
    world.engine.instances.clear()
    observed = world.engine.observe()
    whole = Situation(world.desired, observed, world.memories, world.engine.now, ports=PortRange(port, port + 1))
    for situation, expected in (
        (whole, port),
        (replace(whole, ports=PortRange(port + 1, port + 2)), 8081),
        (replace(whole, switching=False), 8081),
    ):
        (create,) = plan(situation)[KEY].actions
        assert isinstance(create, Create)
        assert create.ports == {8080: expected}
    other = workload("api", "api:good", ports=[{"container": 80, "host": 9000}], rollout={"strategy": "blue-green"})
    world.want(*world.desired.values(), other)
    serving = Instance("1", other.key, "another", "a", "running", kept=True, ports={80: 9000})
    memories = {**world.memories, other.key: Memory(good=other)}
    both = replace(whole, desired=world.desired, observed=Observed((serving,)), memories=memories)
    given = [action.ports for one in plan(both).values() for action in one.actions if isinstance(action, Create)]
    assert given == [{80: port + 1}, {8080: port}]


RULES = Rules(failures=2, start_period=10.0, interval=5.0, timeout=1.0)


def test_health_of_an_instance() -> None:
    """Failures within the start period say nothing; after it some in a row do; good ones in a row undo it."""
    track = Track(0.0, 0.0)
    story = [
        (5.0, False, "starting"),
        (11.0, False, "starting"),
        (12.0, True, "healthy"),
        (13.0, False, "healthy"),
        (14.0, False, "unhealthy"),
        (15.0, True, "unhealthy"),
        (16.0, True, "healthy"),
    ]
    seen = []
    for at, good, _ in story:
        track = track.probed(Probe(good, "" if good else "HTTP 500 from /"), RULES, at)
        seen.append((at, good, track.health.state))
    assert seen == story
    assert track.at(RULES, 17.0) == Health("healthy")
    assert track.at(RULES, 40.0).state == "unknown"


def test_names_and_labels_are_told_apart() -> None:
    """Teams and deployments whose names run together do not share a name; a label of another agent is not ours."""
    assert engine_name("vps-1", "a-b", "c", "a") != engine_name("vps-1", "a", "b-c", "a")
    assert len(engine_name(*["n" * 63] * 4)) == 200
    assert owner_of(owner_labels("vps-1", KEY), "vps-1") == KEY
    assert owner_of(owner_labels("vps-2", KEY), "vps-1") is None
    assert owner_of({}, "vps-1") is None


def test_items_are_read() -> None:
    """An item becomes a workload and comes back from its file; what is none says so in a sentence."""
    spec = {"type": "container", "image": "web:1", "agents": ["vps-1"]}
    item = Item(id="Deployment/shop/web", kind="Deployment", digest=digest_of(spec), spec=spec)
    read = workload_of(item)
    assert (read.key, read.spec.image) == (KEY, "web:1")
    assert workload_from_json(workload_to_json(read)) == read
    with pytest.raises(InvalidItem, match="another id"):
        key_of("Deployment/web")
    with pytest.raises(InvalidItem, match="2 fields"):
        workload_of(item.model_copy(update={"spec": {**spec, "new": 1, "newer": 2}}))
