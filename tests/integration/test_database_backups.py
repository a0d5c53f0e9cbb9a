"""Backups of a real mongod: what is written back is, byte for byte, what was there."""

from __future__ import annotations

import asyncio
import datetime as dt
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from bson import Binary, Decimal128, Int64, ObjectId, Regex, Timestamp
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from agent.deployments.mongodb_admin import login
from agent.deployments.mongodb_archive import verify
from agent.deployments.mongodb_backups import BackupError
from agent.deployments.mongodb_dump import collections_of, databases_of
from schemas.session import ItemResult
from tests.support.database_process import KEY, DatabaseProcess
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.timeout(180),
]

RAW: Final[CodecOptions[RawBSONDocument]] = CodecOptions(document_class=RawBSONDocument)
EVERY_DAY: Final = {"backup": {"every": "24h", "keep": 2}}


@pytest.fixture
def one(tmp_path: Path) -> DatabaseProcess:
    return DatabaseProcess(tmp_path / "one")


@pytest.fixture
def other(tmp_path: Path) -> DatabaseProcess:
    """Another agent, with other passwords."""
    found = DatabaseProcess(tmp_path / "other")
    found.passwords = {"orders/password": "another"}
    return found


async def fill(database: DatabaseProcess) -> None:
    """Make something of everything that a database can hold."""
    async with as_agent(database) as client:
        shop = client.shop
        await shop.orders.insert_many([
            {"n": number, "text": "x" * (number % 50), "when": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}
            for number in range(2500)
        ])  # fmt: skip
        await shop.orders.create_index([("n", 1), ("text", -1)], unique=True, name="by number")
        await shop.orders.create_index([("text", 1)], partialFilterExpression={"n": {"$gt": 5}})
        await shop.orders.create_index([("when", 1)], expireAfterSeconds=10**9)
        await shop["odd/name%é"].insert_one({
            "_id": ObjectId(), "i": Int64(5), "d": Decimal128("1.10"), "b": Binary(b"\0\1", 5), "r": Regex("^a", "i"),
            "t": Timestamp(5, 6), "nan": float("nan"), "deep": {"a": [1, [2, {"b": None}]]},
        })  # fmt: skip
        await shop.create_collection("small", capped=True, size=8192, max=10)
        await shop.small.insert_many([{"k": number} for number in range(20)])
        await shop.create_collection("checked", validator={"k": {"$gt": 5}}, collation={"locale": "de", "strength": 2})
        await shop.checked.insert_one({"k": 6})
        await shop.command({"collMod": "checked", "validator": {"k": {"$gt": 100}}})
        await shop.command({"create": "large", "viewOn": "orders", "pipeline": [{"$match": {"n": {"$gt": 100}}}]})
        await shop.create_collection("weather", timeseries={"timeField": "at", "metaField": "place"})
        await shop.weather.insert_many([
            {"at": dt.datetime(2026, 1, 1, hour, tzinfo=dt.UTC), "place": "fra", "c": hour / 3} for hour in range(24)
        ])  # fmt: skip
        await client.admin.settings.insert_one({"theme": "dark"})
        await client.empty.create_collection("nothing")


def as_agent(database: DatabaseProcess, **more: Any) -> Any:
    instance = database.databases.databases[KEY].instance
    assert instance is not None
    where = database.databases.endpoint(KEY, instance)
    assert where is not None
    return login(where, **more)


async def content(database: DatabaseProcess) -> dict[str, Any]:
    """Everything that is in it: the bytes of documents in their order, indexes and options."""
    found: dict[str, Any] = {}
    async with as_agent(database) as client:
        for name in await databases_of(client):
            for one in await collections_of(client[name]):
                known = client[name][one["name"]]
                source = client[name][f"system.buckets.{one['name']}"] if one["type"] == "timeseries" else known
                documents = [bytes(raw.raw) async for raw in source.with_options(codec_options=RAW).find()]
                indexes = [] if one["type"] == "view" else [dict(index) async for index in await known.list_indexes()]
                key = sorted(indexes, key=lambda index: str(index["name"]))
                found[f"{name}.{one['name']}"] = (one["type"], one.get("options"), key, documents)
    return found


def test_what_is_written_back_is_what_was_there(one: DatabaseProcess, other: DatabaseProcess) -> None:
    """On another agent: documents of every kind, indexes, options, views, time series; users are that agent's own."""

    async def scenario() -> None:
        async with one.running():
            await fill(one)
            before = await content(one)
            kept = await one.backups.back_up(KEY)
            assert await content(one) == before
        assert kept.manifest is not None
        assert kept.manifest.consistent
        assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
        assert verify(kept.path) == kept.manifest
        async with other.running():
            told: list[str] = []
            await other.backups.restore(KEY, kept.path, replace=False, told=told.append)
            assert await content(other) == before
            assert "shop.orders: 2500 documents\n" in told
            async with other.client("another") as client:
                assert await client.shop.large.count_documents({}) == 2399
                assert await client.shop.weather.count_documents({}) == 24

    asyncio.run(scenario())


def test_data_is_replaced_only_when_that_was_said(one: DatabaseProcess) -> None:
    """Without the word nothing is touched; with it, what was there becomes a backup of its own first."""

    async def scenario() -> None:
        async with one.running(), one.client() as client:
            await client.shop.orders.insert_one({"_id": 1, "is": "old"})
            kept = await one.backups.back_up(KEY)
            await client.shop.orders.insert_one({"_id": 2, "is": "new"})
            await client.shop.later.insert_one({"_id": 3})
            before = await content(one)
            with pytest.raises(BackupError, match="has data, which stays"):
                await one.backups.restore(KEY, kept.path, replace=False)
            assert await content(one) == before
            await one.backups.restore(KEY, kept.path, replace=True)
            assert [found async for found in client.shop.orders.find()] == [{"_id": 1, "is": "old"}]
            assert await client.shop.list_collection_names() == ["orders"]
            (replaced,) = [found for found in one.backups.kept(KEY) if found.id.endswith("-replaced")]
            await one.backups.restore(KEY, replaced.path, replace=True)
            assert await content(one) == before

    asyncio.run(scenario())


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _text(path: Path) -> None:
    path.write_text("hello")


@pytest.mark.parametrize("damage", [_cut, _flip, _text])
def test_a_damaged_archive_changes_nothing(one: DatabaseProcess, damage: Callable[[Path], None]) -> None:
    """It is read to its end before the first document is touched."""

    async def scenario() -> None:
        async with one.running(), one.client() as client:
            await client.shop.orders.insert_many([{"n": number} for number in range(500)])
            kept = await one.backups.back_up(KEY)
            before = await content(one)
            damage(kept.path)
            with pytest.raises(BackupError) as caught:
                await one.backups.restore(KEY, kept.path, replace=True)
            assert caught.value.reason == "BadArchive"
            assert await content(one) == before

    asyncio.run(scenario())


def test_a_backup_is_of_one_moment(one: DatabaseProcess) -> None:
    """Somebody who writes to one collection and then to another is never seen in the second alone."""

    async def scenario() -> None:
        async with one.running(), one.client() as client:
            running = True

            async def write() -> int:
                number = 0
                while running:
                    number += 1
                    await client.shop.a.insert_one({"_id": number})
                    await client.shop.z.insert_one({"_id": number})
                return number

            writer = asyncio.create_task(write())
            for _ in range(3):
                kept = await one.backups.back_up(KEY)
                assert kept.manifest is not None
                count = {found.collection: found.documents for found in kept.manifest.collections}
                assert count.get("a", 0) - count.get("z", 0) in (0, 1), count
                one.now += 2
            running = False
            assert await writer > 3, "writes went on between and after"

    asyncio.run(scenario())


def test_a_lock_that_was_left_behind_is_taken_away(one: DatabaseProcess) -> None:
    """An agent that was killed during a backup leaves a database that takes no writes; the next agent mends it."""

    async def scenario() -> None:
        async with one.running(), one.client() as client, as_agent(one) as agent:
            await agent.admin.command({"fsync": 1, "lock": True})
            waiting = asyncio.create_task(client.shop.orders.insert_one({"n": 1}))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            one.restart_agent()
            one.see()
            async with one.tended():
                await asyncio.wait_for(waiting, 10)

    asyncio.run(scenario())


def test_backups_are_made_at_intervals_and_the_oldest_go(one: DatabaseProcess) -> None:
    """One at once, one each day, two are kept; those that were asked for stay, also for an agent that starts anew."""
    one.more = EVERY_DAY

    def ids() -> list[str]:
        return [found.id for found in one.backups.kept(KEY)]

    async def scenario() -> None:
        async with one.running():
            asked = (await one.backups.back_up(KEY)).id
            for day in range(4):
                one.now += 24 * 3600
                if day == 2:
                    one.restart_agent()
                    one.see()
                async with one.tended():
                    made = asyncio.create_task(one.backups.run())
                    newest = dt.datetime.fromtimestamp(one.now, dt.UTC).strftime("%Y%m%dT%H%M%SZ-scheduled")
                    await eventually(lambda newest=newest: ids()[-1] == newest, 20)  # type: ignore[misc]
                    await eventually(lambda: len(ids()) <= 3, 60)
                    made.cancel()
                    await asyncio.gather(made, return_exceptions=True)
            assert len(ids()) == 3
            assert ids()[0] == asked

    asyncio.run(scenario())


def test_a_backup_that_fails_is_said_and_made_later(one: DatabaseProcess) -> None:
    """Without room for it the database runs on and says so; it is tried again, and then all is well."""
    one.more = EVERY_DAY

    def said() -> str:
        base = ItemResult(id="Deployment/shop/orders", state="Applied", reason="Running")
        found = one.databases.result(KEY, base)
        assert found.state == "Applied"
        return found.reason

    async def scenario() -> None:
        async with one.running():
            folder = one.backups.folder(KEY)
            folder.write_text("in the way")
            made = asyncio.create_task(one.backups.run())
            await eventually(lambda: said() == "BackupFailed", 60)
            folder.unlink()
            one.now += 301
            await eventually(lambda: said() == "Running", 60)
            assert len(one.backups.kept(KEY)) == 1
            made.cancel()
            await asyncio.gather(made, return_exceptions=True)

    asyncio.run(scenario())


def test_an_archive_is_written_into_another_database_on_its_machine(
    one: DatabaseProcess, other: DatabaseProcess, tmp_path: Path
) -> None:
    """By a command beside the agent, which needs a yes, and another word where data is."""

    async def scenario() -> None:
        async with one.running(), one.client() as client:
            await client.shop.orders.insert_many([{"n": number} for number in range(3)])
            kept = await one.backups.back_up(KEY)
        archive = tmp_path / "carried.tar.gz"
        archive.write_bytes(kept.path.read_bytes())
        async with other.running(), other.client("another") as client:
            await eventually(lambda: other.databases.records[KEY].address)
            code, said = await asyncio.to_thread(restore_here, other, archive)
            assert (code, "--yes" in said) == (1, True)
            assert await client.shop.orders.count_documents({}) == 0
            assert await asyncio.to_thread(restore_here, other, archive, "--yes") == (
                0, "shop.orders: 3 documents\nRestored into shop/orders.\n"
            )  # fmt: skip
            assert await client.shop.orders.count_documents({}) == 3
            code, said = await asyncio.to_thread(restore_here, other, archive, "--yes")
            assert (code, "has data, which stays" in said) == (1, True)
            code, said = await asyncio.to_thread(restore_here, other, archive, "--yes", "--replace")
            assert (code, "What was there is kept as" in said) == (0, True)
            code, said = await asyncio.to_thread(restore_here, other, tmp_path / "none", "--yes")
            assert (code, "cannot be read" in said) == (1, True)

    asyncio.run(scenario())


def restore_here(database: DatabaseProcess, archive: Path, *more: str) -> tuple[int, str]:
    words = ["agent", "restore-mongodb", "shop/orders", str(archive), "--data", str(database.data), *more]
    done = subprocess.run(
        [sys.executable, "-m", "reconciler", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr
