"""What is known of backends is kept before it is published, and told when fronts have it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from reconciler.desired.observed import GONE, AgentPlacements, Placement
from reconciler.errors import Transient
from reconciler.steps.observing import Observing
from reconciler.steps.passing import Published
from reconciler.store.protocols import Event
from reconciler.store.seen import Drained, SeenAgent
from schemas.session import Observation, ObservationPublished
from tests.support import documents
from tests.support.telling_agent import seen

KEY: Final = "A" * 43
FILES: Final[dict[str, bytes | None]] = {
    "fleet.yaml": documents.fleet(),
    "agents/vps-1.yaml": documents.agent("vps-1", identity={"thumbprint": KEY}),
    "deployments/shop/web.yaml": documents.deployment("web", "vps-1"),
    "routes/shop/web.yaml": documents.route("web", backends=[{"deployment": "web"}]),
}


@dataclass
class World:
    """A store, events and a hub in memory, and a clock for both kinds of time."""

    now: float = 1000.0
    rows: dict[str, SeenAgent] = field(default_factory=dict)
    drains: dict[str, Drained] = field(default_factory=dict)
    written: list[Event] = field(default_factory=list)
    told: list[tuple[str, int]] = field(default_factory=list)
    full: bool = False
    barred: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        self.published = Published(1, "a" * 40, documents.state_of(FILES))
        self.observing = self.new()

    def new(self) -> Observing:
        """Another process on the same store."""
        made = Observing(
            self,
            self,
            silence=lambda: 35.0,
            barred=lambda: frozenset({self.barred}),
            clock=lambda: self.now + 1e9,
            monotonic=lambda: self.now,
        )
        made.teller = self
        return made

    def _check(self) -> None:
        if self.full:
            raise Transient("the disk is full", reason="DiskFull")

    async def save_seen(self, agents: Sequence[SeenAgent]) -> None:
        self._check()
        self.rows |= {one.name: one for one in agents}

    async def seen_agents(self) -> Sequence[SeenAgent]:
        return list(self.rows.values())

    async def drain_agent(self, drained: Drained) -> None:
        self._check()
        self.drains[drained.name] = drained

    async def undrain_agent(self, name: str) -> None:
        self.drains.pop(name, None)

    async def drained_agents(self) -> Sequence[Drained]:
        return list(self.drains.values())

    async def forget_seen(self, names: Sequence[str]) -> None:
        for name in names:
            self.rows.pop(name, None)
            self.drains.pop(name, None)

    async def append(self, event: Event) -> Event:
        self._check()
        self.written.append(event)
        return event

    async def events(self, **_: Any) -> Sequence[Event]:
        return self.written

    def tell(self, name: str, message: ObservationPublished) -> bool:
        self.told.append((name, message.number))
        return True

    async def hears(self, number: int, health: str = "healthy", actual: int = 20001) -> None:
        self.observing.told("vps-1", Observation(number=number, deployments=(seen("web", health, {8081: actual}),)))

    async def look(self) -> dict[str, AgentPlacements]:
        return dict(await self.observing.look(self.published))

    def types(self) -> list[str]:
        return [one.type for one in self.written]


def test_an_agent_is_told_when_fronts_have_what_it_said() -> None:
    """Not before it is on disk, published and loaded by all; at once where nothing has to change."""

    async def scenario() -> None:
        world = World()
        world.observing.connected("vps-1")
        await world.hears(1)
        world.observing.acknowledge(world.published)
        assert world.told == []
        wanted = await world.look()
        assert wanted == {"vps-1": AgentPlacements({8081: Placement(20001)})}
        assert world.rows["vps-1"].told[0]["ports"] == [{"declared": 8081, "actual": 20001}]
        world.observing.acknowledge(world.published)
        world.observing.acknowledge(replace(world.published, placements=wanted, confirmed=False))
        assert world.told == []
        world.observing.acknowledge(replace(world.published, placements=wanted))
        assert world.told == [("vps-1", 1)]
        world.published = replace(world.published, placements=wanted)
        await world.hears(2)
        await world.look()
        world.observing.acknowledge(world.published)
        assert world.told == [("vps-1", 1), ("vps-1", 2)]
        world.observing.acknowledge(world.published)
        assert len(world.told) == 2

    asyncio.run(scenario())


def test_what_cannot_be_kept_is_not_published() -> None:
    """Fronts must not be given a port that a restart would not know; with the disk back it is kept, and told once."""

    async def scenario() -> None:
        world = World()
        world.observing.connected("vps-1")
        world.full = True
        await world.hears(1, "unhealthy")
        with pytest.raises(Transient):
            await world.look()
        with pytest.raises(Transient):
            await world.look()
        world.full = False
        assert await world.look() == {"vps-1": AgentPlacements({8081: Placement(20001, "none")})}
        assert world.types() == ["EndpointOut"]
        assert world.rows["vps-1"].out == (("shop", "web", 8081, 1e9 + 1000),)

    asyncio.run(scenario())


def test_a_restart_knows_ports_and_what_was_out() -> None:
    """What cannot be read any more is left out, and the rest counts."""

    async def scenario() -> None:
        world = World()
        world.observing.connected("vps-1")
        await world.hears(1, "unhealthy")
        before = await world.look()
        world.rows["vps-2"] = SeenAgent("vps-2", ({"team": 7},))
        world.now += 3
        world.observing = world.new()
        await world.observing.load(["vps-1", "vps-2"])
        assert await world.look() == before
        world.now += 7
        assert await world.look() == {"vps-1": AgentPlacements({8081: Placement(20001, "gone")})}
        assert world.types() == ["EndpointOut"]

    asyncio.run(scenario())


def test_a_restart_knows_ports_of_an_engine_that_is_away() -> None:
    """An agent that cannot see what it runs tells of no port, and the one it told before is kept on disk."""

    async def scenario() -> None:
        world = World()
        world.observing.connected("vps-1")
        await world.hears(1)
        before = await world.look()
        assert before == {"vps-1": AgentPlacements({8081: Placement(20001)})}
        world.observing.told("vps-1", Observation(number=2, deployments=(seen("web", "unknown"),)))
        assert await world.look() == before
        for _ in range(2):
            world.observing = world.new()
            await world.observing.load(["vps-1"])
            assert await world.look() == before
            world.observing.connected("vps-1")
            world.observing.told("vps-1", Observation(number=1, deployments=(seen("web", "unknown"),)))
            assert await world.look() == before
        assert world.types() == []

    asyncio.run(scenario())


def test_a_drain_is_an_event_at_each_end_and_ends_by_itself() -> None:
    """With who and why; also when a restart comes in between."""

    async def scenario() -> None:
        world = World()
        await world.observing.drain(Drained("vps-1", "a new disk", "operator", 1e9 + world.now, 1e9 + world.now + 60))
        assert await world.look() == {"vps-1": AgentPlacements(share="none")}
        world.now += 30
        world.observing = world.new()
        await world.observing.load([])
        assert await world.look() == {"vps-1": AgentPlacements(share="gone")}
        world.now += 30
        assert await world.look() == {}
        assert world.drains == {}
        assert not await world.observing.undrain("vps-1", "operator")
        assert [(one.type, one.actor) for one in world.written] == [
            ("AgentDrained", "operator"),
            ("AgentUndrained", ""),
        ]
        assert world.written[0].message == "gets no requests any more for 60 s: a new disk"

    asyncio.run(scenario())


def test_what_is_known_of_an_agent_ends_with_its_object() -> None:
    """Once no front can lead there: until then the former generation may come back."""

    async def scenario() -> None:
        world = World()
        world.observing.connected("vps-1")
        await world.hears(1)
        await world.look()
        kept = documents.settled(world.published.state, {path: None for path in FILES if path != "fleet.yaml"}).state
        world.published = replace(world.published, state=kept, confirmed=False)
        assert await world.look() == {}
        assert world.observing.elsewhere("127.0.0.1:8081") == ("127.0.0.1:20001",)
        world.published = replace(world.published, confirmed=True)
        await world.look()
        assert world.rows == {}
        assert world.observing.judge.agents == {}
        assert world.observing.elsewhere("127.0.0.1:8081") == ()

    asyncio.run(scenario())


def test_an_agent_whose_key_is_locked_out_is_gone_before_git_knows() -> None:
    """Another key of the same name is another matter."""

    async def scenario() -> None:
        for barred, expected in ((("vps-1", KEY), {"vps-1": GONE}), (("vps-1", "B" * 43), {}), (("vps-1", ""), {})):
            world = World(barred=barred)
            assert await world.look() == expected

    asyncio.run(scenario())


def test_silence_is_told_once() -> None:
    """And again only after the agent was there in between."""

    async def scenario() -> None:
        world = World()
        for _ in range(2):
            world.observing.connected("vps-1")
            world.observing.heard("vps-1")
            world.observing.disconnected("vps-1")
            for _ in range(3):
                await world.look()
                world.now += 20
            await world.look()
        assert world.types() == ["AgentUnknown", "AgentUnknown"]

    asyncio.run(scenario())


def test_a_word_of_a_former_connection_is_not_acknowledged() -> None:
    """Numbers begin again in each connection."""

    async def scenario() -> None:
        world = World()
        world.observing.connected("vps-1")
        await world.hears(7)
        wanted = await world.look()
        world.observing.connected("vps-1")
        world.observing.acknowledge(replace(world.published, placements=wanted))
        assert world.told == []

    asyncio.run(scenario())


def test_nothing_is_said_before_anything_is_published() -> None:
    """Without a fleet there is nothing to place."""

    async def scenario() -> None:
        world = World()
        assert await world.observing.look(Published()) == {}

    asyncio.run(scenario())
