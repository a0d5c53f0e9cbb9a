"""What is seen otherwise becomes another generation of the same revision, at a pace, and with patience for fronts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler.desired.observed import AgentPlacements, Placement, Placements
from reconciler.errors import Transient
from reconciler.observability.metrics import Metrics
from reconciler.status import Tracker
from reconciler.steps import placing as placing_module
from reconciler.steps.passing import Published
from reconciler.steps.placing import Placing
from tests.unit.test_status import Records

MOVED: Placements = {"vps-1": AgentPlacements({8080: Placement(20001)})}
AGAIN: Placements = {"vps-1": AgentPlacements({8080: Placement(20002)})}


@dataclass
class World:
    """Observing, fronts and what is in service, each as small as it can be."""

    wanted: Placements = field(default_factory=dict)
    published: Published = field(default_factory=lambda: Published(4, "a" * 40))
    done: list[str] = field(default_factory=list)
    fault: Exception | None = None
    loads: bool = True
    now: float = 1000.0
    fronts: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        world: Any = self
        self.tracker = Tracker(Records(), lambda: 1.0)
        self.metrics = Metrics()
        self.woken = asyncio.Event()
        self.placing = Placing(
            world, world, world, self.tracker, self.metrics, self.woken, clock=lambda: 1.0, monotonic=lambda: self.now
        )

    async def look(self, published: Published) -> Placements:
        if self.fault is not None:
            raise self.fault
        return self.wanted

    def acknowledge(self, published: Published) -> None:
        self.done.append(f"acknowledge {published.generation}")

    async def placed(self, published: Published, placements: Placements) -> Published:
        return replace(published, placements=placements)

    async def next_generation(self) -> int:
        return self.published.generation + 1

    async def publish(self, published: Published, now: float) -> None:
        self.done.append(f"publish {published.generation}")

    def put(self, published: Published) -> None:
        self.published = published

    async def read_back(self, overtaken: asyncio.Event) -> bool:
        if not self.loads:
            await overtaken.wait()
            self.done.append("overtaken")
        self.published = replace(self.published, confirmed=self.loads)
        return True


def test_what_is_as_it_was_is_not_published() -> None:
    """Agents may be told all the same."""

    async def scenario() -> None:
        world = World()
        await world.placing.look()
        assert world.done == ["acknowledge 4"]

    asyncio.run(scenario())


def test_another_generation_of_the_same_revision_is_published_and_read_back() -> None:
    """Its number is in the record of the revision, where that is open, and it is counted by its cause."""

    async def scenario() -> None:
        world = World(MOVED)
        world.tracker.begin("a" * 40)
        await world.placing.look()
        assert world.done == ["publish 5", "acknowledge 5"]
        assert (world.published.revision, world.published.placements) == ("a" * 40, MOVED)
        record = world.tracker.get("a" * 40)
        assert record is not None
        assert record.generation == 5
        assert b'cloudlunacy_generations_total{cause="observation"} 1.0' in world.metrics.render()[0]

    asyncio.run(scenario())


def test_the_next_one_waits_for_its_time() -> None:
    """A second after one that is loaded; longer after one that is not, or a front would never be seen to have any."""

    async def scenario() -> None:
        world = World(MOVED)
        await world.placing.look()
        world.wanted = AGAIN
        await world.placing.look()
        assert world.published.generation == 5
        world.now += 1
        await world.placing.look()
        assert world.published.generation == 6
        world.published = replace(world.published, confirmed=False)
        world.wanted = MOVED
        world.now += 1
        await world.placing.look()
        assert world.published.generation == 6
        world.now += 2
        await world.placing.look()
        assert world.published.generation == 7

    asyncio.run(scenario())


def test_a_newer_commit_and_a_front_that_is_away_end_the_wait(monkeypatch: Any) -> None:
    """Neither has to wait for the other."""

    async def scenario() -> None:
        world = World(MOVED, loads=False)
        looking = asyncio.create_task(world.placing.look())
        await asyncio.sleep(0)
        world.woken.set()
        await asyncio.wait_for(looking, 2)
        assert world.done == ["publish 5", "overtaken", "acknowledge 5"]
        monkeypatch.setattr(placing_module, "PATIENCE_SECONDS", 0.01)
        world = World(MOVED, loads=False)
        await asyncio.wait_for(world.placing.look(), 2)
        assert "overtaken" in world.done

    asyncio.run(scenario())


def test_what_fails_is_tried_again_and_ends_nothing() -> None:
    """A full disk and a bug alike."""

    async def scenario() -> None:
        world = World(MOVED)
        for fault in (Transient("the disk is full", reason="DiskFull"), ValueError("a bug")):
            world.fault = fault
            await world.placing.look()
            await world.placing.look()
        assert world.done == []
        world.fault = None
        await world.placing.look()
        assert world.done == ["publish 5", "acknowledge 5"]

    asyncio.run(scenario())
