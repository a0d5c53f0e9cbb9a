"""Who knocks where, and what comes of it."""

from __future__ import annotations

import asyncio
from typing import Final

from reconciler.desired.verdicts import Judge
from reconciler.steps.knocking import AT_ONCE, Knocking, connects_to
from reconciler.steps.passing import Published
from tests.support import documents
from tests.support.ports import free_port
from tests.support.telling_agent import seen

FILES: Final[dict[str, bytes | None]] = {
    "fleet.yaml": documents.fleet(),
    "agents/vps-1.yaml": documents.agent("vps-1", address="192.0.2.1"),
    "agents/vps-2.yaml": documents.agent("vps-2", address="192.0.2.2"),
    "deployments/shop/web.yaml": documents.deployment("web", "vps-1"),
    "routes/shop/web.yaml": documents.route("web", backends=[{"deployment": "web"}]),
    "routes/shop/raw.yaml": documents.route("raw", backends=[{"agent": "vps-2", "port": 9000}]),
}


class World:
    def __init__(self) -> None:
        self.judge = Judge(timeout=35.0)
        self.asked: list[tuple[str, int]] = []
        self.dead: set[int] = set()
        self.nudges = 0
        self.now = 1000.0
        self.published = Published(1, "a" * 40, documents.state_of(FILES))
        self.knocking = Knocking(
            self.judge, lambda: self.published, self.nudge, connects=self.connects, monotonic=lambda: self.now,
            clock=lambda: 5.0,
        )  # fmt: skip

    def nudge(self) -> None:
        self.nudges += 1

    async def connects(self, host: str, port: int) -> bool:
        self.asked.append((host, port))
        return port not in self.dead


def test_only_endpoints_of_silent_agents_are_tried_where_they_answer() -> None:
    """Not of agents that are connected, or were never there, or whose time-out has not passed."""

    async def scenario() -> None:
        world = World()
        world.judge.connected("vps-1", world.now)
        world.judge.told("vps-1", [seen("web", ports={8081: 20001})], world.now)
        world.judge.placements(lambda _, __: frozenset({8081}), (), world.now)
        await world.knocking.round()
        world.judge.disconnected("vps-1")
        world.now += 34
        await world.knocking.round()
        assert world.asked == []
        world.now += 1
        await world.knocking.round()
        assert world.asked == [("192.0.2.1", 20001)]
        assert world.knocking.found == {"vps-1": (5.0, 1, ())}
        assert world.nudges == 0

    asyncio.run(scenario())


def test_two_failures_are_a_change() -> None:
    """Somebody is told to look, and what does not answer is named."""

    async def scenario() -> None:
        world = World()
        world.judge.connected("vps-2", world.now)
        world.judge.disconnected("vps-2")
        world.now += 35
        world.dead.add(9000)
        await world.knocking.round()
        assert world.nudges == 0
        await world.knocking.round()
        await world.knocking.round()
        assert world.nudges == 1
        assert world.knocking.found == {"vps-2": (5.0, 0, ("192.0.2.2:9000",))}
        world.judge.connected("vps-2", world.now)
        await world.knocking.round()
        assert world.knocking.found == {}

    asyncio.run(scenario())


def test_not_too_many_are_tried_at_a_time() -> None:
    """However many routes lead to silent agents."""

    async def scenario() -> None:
        world = World()
        most = now = 0

        async def slow(_: str, __: int) -> bool:
            nonlocal most, now
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1
            return True

        many = {}
        for port in range(1000, 1000 + 3 * AT_ONCE):
            many[f"routes/shop/r{port}.yaml"] = documents.route(f"r{port}", backends=[{"agent": "vps-1", "port": port}])
        world.published = Published(1, "a" * 40, documents.state_of({**FILES, **many}))
        knocking = Knocking(
            world.judge, lambda: world.published, world.nudge, connects=slow, monotonic=lambda: world.now
        )
        world.judge.known("vps-1", world.now - 100)
        await knocking.round()
        assert most == AT_ONCE

    asyncio.run(scenario())


def test_a_connection_says_whether_somebody_answers() -> None:
    """A closed port, a host that is none and a port that is none are no answer, and no error."""

    async def scenario() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        assert await connects_to("127.0.0.1", port)
        server.close()
        await server.wait_closed()
        assert not await connects_to("127.0.0.1", free_port())
        assert not await connects_to("no-such-host.invalid", 80)
        assert not await connects_to("127.0.0.1", 99_999)
        assert not await connects_to("a" * 70 + ".example", 80)

    asyncio.run(scenario())
