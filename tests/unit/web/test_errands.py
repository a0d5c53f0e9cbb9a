"""Commands that go on after the answer that began them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from reconciler.agents.commands import Asked
from reconciler.errors import Refused
from reconciler.web import errands as module
from reconciler.web.errands import Errand, Errands
from schemas.objects import ObjectKey
from schemas.session import Command, CommandOutput
from tests.support.fleet_pages import WEB, FleetPages, run


def asked(agent: str, key: ObjectKey = WEB) -> Asked:
    return Asked(agent, "restart", str(key), f"restart on {agent}", 60.0, {})


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def both(scenario: Callable[[FleetPages], Awaitable[None]]) -> Callable[[FleetPages], Awaitable[None]]:
    """Two agents are there."""

    async def with_two(pages: FleetPages) -> None:
        pages.talking.connected = frozenset({"vps-1", "vps-2"})
        await scenario(pages)

    return with_two


def commands(pages: FleetPages) -> list[str]:
    return [one.id for one in pages.talking.told if isinstance(one, Command)]


def test_agents_come_one_after_the_other(tmp_path: Path) -> None:
    """The second begins once the first has ended well; what both said is kept."""

    async def scenario(pages: FleetPages) -> None:
        errand = await pages.errands.begin(WEB, [asked("vps-1"), asked("vps-2")], "person:eve")
        assert (errand.on, errand.state, len(commands(pages))) == ("vps-1", "Progressing", 1)
        pages.commands.said("vps-1", CommandOutput(id=commands(pages)[0], text="one\n", last=True))
        await until(lambda: len(commands(pages)) == 2)
        assert errand.on == "vps-2"
        pages.commands.said("vps-2", CommandOutput(id=commands(pages)[1], text="two\n", last=True))
        await until(lambda: errand.ended is not None)
        assert (errand.state, errand.text) == ("Done", "one\ntwo\n")

    run(tmp_path, both(scenario))


def test_after_one_that_failed_no_other_begins(tmp_path: Path) -> None:
    """Its reason is the errand's."""

    async def scenario(pages: FleetPages) -> None:
        errand = await pages.errands.begin(WEB, [asked("vps-1"), asked("vps-2")], "person:eve")
        pages.commands.said("vps-1", CommandOutput(id=commands(pages)[0], last=True, reason="TimedOut", message="late"))
        await until(lambda: errand.ended is not None)
        assert (errand.state, errand.reason, errand.message, len(commands(pages))) == ("Failed", "TimedOut", "late", 1)

    run(tmp_path, both(scenario))


def test_one_that_cannot_begin_leaves_what_was_known(tmp_path: Path) -> None:
    """The former one and how it ended stay."""

    async def scenario(pages: FleetPages) -> None:
        errand = await pages.errands.begin(WEB, [asked("vps-1")], "person:eve")
        pages.commands.said("vps-1", CommandOutput(id=commands(pages)[0], last=True))
        await until(lambda: errand.ended is not None)
        pages.talking.connected = frozenset()
        with pytest.raises(Refused, match="is not connected"):
            await pages.errands.begin(WEB, [asked("vps-1")], "person:eve")
        assert pages.errands.of(WEB) == (errand,)

    run(tmp_path, scenario)


def test_what_is_under_way_ends_with_the_application(tmp_path: Path) -> None:
    """Its agent is told to stop, and no task is left."""

    async def scenario(pages: FleetPages) -> None:
        errand = await pages.errands.begin(WEB, [asked("vps-1")], "person:eve")
        task = asyncio.create_task(pages.errands.run())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert errand.ended is not None
        assert pages.talking.told[-1].type == "command-stop"

    run(tmp_path, scenario)


def test_no_more_are_remembered_than_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest that ended is forgotten; of one only the last of its words are kept."""
    monkeypatch.setattr(module, "REMEMBERED", 2)

    async def scenario(pages: FleetPages) -> None:
        pages.talking.says["restart"] = ["x" * 9000 + "end"]
        errands = Errands(pages.commands)
        made: list[Errand] = []
        for number in range(4):
            key = ObjectKey("Deployment", "shop", f"d{number}")
            made.append(await errands.begin(key, [asked("vps-1", key)], "person:eve"))
            await until(lambda: made[-1].ended is not None)
        known = [one for made_one in made for one in errands.of(made_one.key)]
        assert known == made[2:]
        assert (len(made[-1].text), made[-1].text[-3:]) == (8000, "end")

    run(tmp_path, scenario)
