"""A database that hangs holds up no other one of its agent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from agent.deployments.mongodb import Databases, DatabaseSettings
from agent.deployments.mongodb_backups import Backups, Kept
from agent.deployments.mongodb_files import DatabaseFiles
from agent.deployments.mongodb_known import start_of
from agent.deployments.observed import Instance, Observed
from agent.deployments.workload import Key, Workload
from tests.support.waiting import eventually
from tests.unit.agent.test_database_parts import RECORD, SEALER, workload

HANGS: Final = Key("shop", "hangs")
WELL: Final = Key("shop", "well")


def two(tmp_path: Path) -> Databases:
    held: Any = lambda _team, _name: object()  # noqa: E731
    settings = DatabaseSettings(look=0.01)
    found = Databases(DatabaseFiles(tmp_path, SEALER), ["container"], held=held, settings=settings)
    instances = []
    for key in (HANGS, WELL):
        found.records[key] = RECORD
        made = found.lowered(Workload(key, workload(mongodb={"backup": {"every": "1h"}}).spec))
        assert isinstance(made, Workload)
        instances.append(Instance(key.name, key, made.digest, "a", "running", address=key.name))
    found.seen("container", Observed(tuple(instances)))
    return found


def while_at_work(run: Callable[[], Awaitable[None]], reached: Callable[[], bool]) -> None:
    async def scenario() -> None:
        task = asyncio.ensure_future(run())
        await eventually(reached, 60)
        task.cancel()
        await asyncio.wait({task}, timeout=20)
        assert task.cancelled()

    asyncio.run(scenario())


def test_the_others_are_looked_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again, while it is asked once."""
    found, asked = two(tmp_path), []

    async def ensure_admin(where: Any) -> None:
        asked.append(where.host)
        if where.host == HANGS.name:
            await asyncio.Event().wait()
        raise OSError("no")

    monkeypatch.setattr("agent.deployments.mongodb.admin.ensure_admin", ensure_admin)
    while_at_work(found.run, lambda: asked.count(WELL.name) > 3)
    assert asked.count(HANGS.name) == 1


def test_the_others_are_backed_up(tmp_path: Path) -> None:
    """At their intervals, while its own goes on."""
    databases, asked = two(tmp_path), []
    for database in databases.databases.values():
        assert database.instance is not None
        database.greeted = start_of(database.instance)

    class Hanging(Backups):
        async def back_up(self, key: Key, _reason: str = "asked") -> Kept:
            asked.append(key)
            if key == HANGS:
                await asyncio.Event().wait()
            return Kept("x", tmp_path, 0, None)

    found = Hanging(databases, look=0.01)
    while_at_work(found.run, lambda: asked.count(WELL) > 3)
    assert asked.count(HANGS) == 1
