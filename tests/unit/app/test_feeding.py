"""Where the feed hears of changes: what is called, and what is compared from one look to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from reconciler.app.feeding import Feeding
from reconciler.steps.passing import Published
from reconciler.store.protocols import Event
from reconciler.web.feed import Listener
from schemas.api import FrontStatus
from schemas.problem import Problem
from tests.support.documents import agent, fleet, route, state_of
from tests.unit.web.asking import Asked, asked

FILES = {
    "fleet.yaml": fleet(),
    "agents/vps-1.yaml": agent("vps-1"),
    "routes/shop/web.yaml": route("web"),
    "routes/shop/api.yaml": route("api"),
}


async def heard(listener: Listener) -> list[tuple[str, str]]:
    taken = await listener.take(0)
    assert taken is not None
    return [(one.topic, one.name) for one in taken.changes]


def run(data: Path, scenario: Callable[[Asked, Any, Feeding, Listener], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asked(data) as one:
            plane: Any = SimpleNamespace(
                published=Published(1, "1" * 40, state_of(FILES)),
                problems=tuple,
                measuring=SimpleNamespace(names=lambda: ["vps-1", "vps-2"], statuses=lambda _: ("True",)),
                presence_of=lambda _: "Connected",
            )
            observer: Any = SimpleNamespace()
            feeding = Feeding(plane, one.store, one.tracker, observer)
            plane.news = observer
            with feeding.feed.listen() as listener:
                await scenario(one, plane, feeding, listener)

    asyncio.run(main())


def test_who_changes_something_calls(tmp_path: Path) -> None:
    """Records, agents, and events; an event of an agent is news of that agent."""

    async def scenario(one: Asked, plane: Any, feeding: Feeding, listener: Listener) -> None:
        one.tracker.begin("1" * 40)
        plane.news.on_news("vps-1")
        kept = await one.store.append(Event(1.0, "EndpointOut", "warning", "agent/vps-2", "port 80 is out"))
        assert await heard(listener) == [
            ("revision", "1" * 40), ("agent", "vps-1"), ("timeline", str(kept.id)), ("agent", "vps-2"),
        ]  # fmt: skip

    run(tmp_path, scenario)


def test_what_is_published_is_compared(tmp_path: Path) -> None:
    """Objects that came, changed or went, and files with which something else is wrong, by their paths."""

    async def scenario(one: Asked, plane: Any, feeding: Feeding, listener: Listener) -> None:
        feeding.look()
        await heard(listener)
        feeding.look()
        assert await heard(listener) == []
        changed = {**FILES, "routes/shop/new.yaml": route("new")}
        del changed["routes/shop/api.yaml"]
        plane.published = Published(2, "2" * 40, state_of(changed))
        plane.problems = lambda: (Problem(file="routes/shop/web.yaml", code="yaml-syntax", message="broken."),)
        feeding.look()
        assert sorted(await heard(listener)) == [
            ("object", "routes/shop/api.yaml"), ("object", "routes/shop/new.yaml"), ("object", "routes/shop/web.yaml"),
        ]  # fmt: skip

    run(tmp_path, scenario)


def test_what_nobody_tells_of_is_looked_at(tmp_path: Path) -> None:
    """An agent that fell silent, and a front that has loaded something else."""

    async def scenario(one: Asked, plane: Any, feeding: Feeding, listener: Listener) -> None:
        loaded = [1]

        async def fronts() -> tuple[FrontStatus, ...]:
            return (FrontStatus(name="front-1", file="/f", loaded_generation=loaded[0]),)

        plane.fronts = fronts
        feeding.look_at_agents()
        await feeding.look_at_fronts()
        assert await heard(listener) == []
        plane.presence_of = lambda name: "Silent" if name == "vps-2" else "Connected"
        loaded[0] = 2
        feeding.look_at_agents()
        await feeding.look_at_fronts()
        assert await heard(listener) == [("agent", "vps-2"), ("front", "front-1")]

    run(tmp_path, scenario)
