"""What agents told and who is drained, in the real database."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from reconciler.store.seen import Drained, SeenAgent
from reconciler.store.sqlite import SQLiteStore

TOLD = {"team": "shop", "name": "web", "health": "healthy", "ports": [{"declared": 8080, "actual": 20001}]}
SEEN = SeenAgent("vps-1", (TOLD,), (("shop", "web", 8080, 12.5), ("", "", 9000, 13.0)))
DRAINED = Drained("vps-1", "a new disk", "operator", 10.0, 3610.0)


def test_what_was_told_comes_back_after_a_restart(tmp_path: Path) -> None:
    """The newest of each agent; what is forgotten is gone, with its drain."""

    async def scenario() -> None:
        store = await SQLiteStore.open(tmp_path)
        await store.save_seen([SEEN, SeenAgent("vps-2", (TOLD,))])
        await store.save_seen([SeenAgent("vps-2")])
        await store.drain_agent(DRAINED)
        await store.close()
        store = await SQLiteStore.open(tmp_path)
        assert list(await store.seen_agents()) == [SEEN, SeenAgent("vps-2")]
        await store.forget_seen(["vps-1"])
        assert list(await store.seen_agents()) == [SeenAgent("vps-2")]
        assert list(await store.drained_agents()) == []
        await store.close()

    asyncio.run(scenario())


def test_a_drain_is_replaced_and_ended(tmp_path: Path) -> None:
    """Of one agent the newest counts."""

    async def scenario() -> None:
        store = await SQLiteStore.open(tmp_path)
        for_good = Drained("vps-1", "", "somebody else", 20.0)
        await store.drain_agent(DRAINED)
        await store.drain_agent(for_good)
        assert list(await store.drained_agents()) == [for_good]
        await store.undrain_agent("vps-1")
        await store.undrain_agent("vps-1")
        assert list(await store.drained_agents()) == []
        await store.close()

    asyncio.run(scenario())


def test_a_row_that_a_bad_disk_changed_is_left_out(tmp_path: Path) -> None:
    """The others count."""

    async def scenario() -> None:
        store = await SQLiteStore.open(tmp_path)
        await store.save_seen([SEEN, SeenAgent("vps-2")])
        with sqlite3.connect(tmp_path / "outbox.db") as other:
            other.execute("INSERT INTO seen_agents VALUES ('vps-8', '[1'), ('vps-9', '{\"told\": [], \"out\": [1]}')")
        other.close()
        assert [one.name for one in await store.seen_agents()] == ["vps-1", "vps-2"]
        await store.close()

    asyncio.run(scenario())
