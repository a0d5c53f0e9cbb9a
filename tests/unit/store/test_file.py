"""Faults of the database files: damaged, deleted, locked, full, read-only, too new."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.errors import Broken, Transient
from reconciler.store import file
from reconciler.store.schema import OUTBOX_SCHEMA, STATE_SCHEMA, Schema, migrate
from reconciler.store.sqlite import SQLiteStore
from tests.unit.store.contract import ENTRY, EVENT, RECORD, TOKEN
from tests.unit.store.damage import PAGE, overwrite_from, overwrite_page, report_damage
from tests.unit.store.test_sqlite import opened, within


def fill(directory: Path, entries: int = 300) -> None:
    """Fill both databases with enough for several pages."""

    async def scenario(store: SQLiteStore) -> None:
        payload = {"filler": "x" * 400}
        await asyncio.gather(*(store.put(replace(ENTRY, id=f"e{n}", payload=payload)) for n in range(entries)))
        await store.add_token(TOKEN)
        await asyncio.gather(
            *(store.save_record(replace(RECORD, revision=f"{n:040x}", updated_at=float(n))) for n in range(100))
        )

    within(directory, scenario)


def leaf_pages(path: Path) -> list[int]:
    """Return the numbers of the pages that hold rows of a table (type 0x0d), from the second page on."""
    content = path.read_bytes()
    return [at // PAGE + 1 for at in range(PAGE, len(content), PAGE) if content[at] == 0x0D]


@pytest.mark.parametrize("first", [1, 3])
def test_a_damaged_state_database_is_set_aside_and_rebuilt(tmp_path: Path, first: int) -> None:
    """The store starts with an empty state.db, keeps the damaged one, tells of it; the outbox is untouched."""
    fill(tmp_path, entries=3)
    overwrite_from(tmp_path / "state.db", first)

    async def look(store: SQLiteStore) -> None:
        assert list(await store.records()) == []
        assert len(await store.pending()) == 3
        assert len(store.notices) == 1
        assert "state.db was damaged" in store.notices[0]
        await store.save_record(RECORD)
        assert await store.record(RECORD.revision) == RECORD

    within(tmp_path, look)
    assert len(list(tmp_path.glob("state.db.corrupt-*"))) == 1


def test_damaged_copies_do_not_pile_up(tmp_path: Path) -> None:
    """Of a database that is damaged again and again the newest three copies are kept."""

    async def look(store: SQLiteStore) -> None:
        assert len(store.notices) == 1

    for _ in range(5):
        (tmp_path / "state.db").write_bytes(b"nonsense" * 1000)
        within(tmp_path, look)
    assert len(list(tmp_path.glob("state.db.corrupt-*"))) == 3


def test_a_damaged_outbox_stops_the_start_until_a_person_accepts_what_was_read(tmp_path: Path) -> None:
    """Every row outside the damaged page is salvaged, the start is refused with the way out, and that way works."""
    fill(tmp_path)
    pages = leaf_pages(tmp_path / "outbox.db")
    assert len(pages) > 20
    overwrite_page(tmp_path / "outbox.db", pages[len(pages) // 2])

    for _ in range(2):
        with pytest.raises(Broken, match=r"outbox\.db was damaged") as refusal:
            within(tmp_path, _nothing)
        assert f"mv {tmp_path}/outbox.db.salvaged {tmp_path}/outbox.db" in refusal.value.hint
        assert not (tmp_path / "outbox.db").exists()
    assert len(list(tmp_path.glob("outbox.db.corrupt-*"))) == 1

    (tmp_path / "outbox.db.salvaged").rename(tmp_path / "outbox.db")

    async def look(store: SQLiteStore) -> None:
        assert await store.token(TOKEN.id) == TOKEN
        assert 300 - PAGE // 400 <= len(await store.pending()) < 300

    within(tmp_path, look)


@pytest.mark.parametrize("content", [b"", b"nonsense" * 1000], ids=["empty", "nonsense"])
def test_an_outbox_without_any_readable_row_is_not_silently_replaced(tmp_path: Path, content: bytes) -> None:
    """A file that is no database, or cut to nothing, stops the start too."""
    (tmp_path / "outbox.db").write_bytes(content)
    with pytest.raises(Broken, match="0 of outbox"):
        within(tmp_path, _nothing)


def test_entries_in_the_write_ahead_log_are_salvaged(tmp_path: Path) -> None:
    """Damage to the main file does not cost what a killed process left in its write-ahead log."""

    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.put(ENTRY)
            for name in ("outbox.db", "outbox.db-wal"):
                (tmp_path / f"{name}.copy").write_bytes((tmp_path / name).read_bytes())

    asyncio.run(scenario())
    for name in ("outbox.db", "outbox.db-wal"):
        (tmp_path / f"{name}.copy").rename(tmp_path / name)
    overwrite_page(tmp_path / "outbox.db", (tmp_path / "outbox.db").stat().st_size // PAGE)
    try:
        within(tmp_path, _nothing)
    except Broken:
        (tmp_path / "outbox.db.salvaged").rename(tmp_path / "outbox.db")

    async def look(store: SQLiteStore) -> None:
        assert list(await store.pending()) == [ENTRY]

    within(tmp_path, look)


@pytest.mark.parametrize("suffixes", [("",), ("-wal",), ("", "-wal", "-shm")])
@pytest.mark.parametrize("name", ["outbox.db", "state.db"])
def test_a_file_deleted_while_in_use_is_written_again(tmp_path: Path, name: str, suffixes: tuple[str, ...]) -> None:
    """What was acknowledged before and after the deletion is there when the store is opened again."""

    async def scenario(store: SQLiteStore) -> None:
        await store.put(ENTRY)
        await store.append(EVENT)
        for suffix in suffixes:
            (tmp_path / f"{name}{suffix}").unlink()
        await store.put(replace(ENTRY, id="e2"))
        await store.append(replace(EVENT, message="second"))
        assert len(store.notices) == 1

    within(tmp_path, scenario)

    async def look(store: SQLiteStore) -> None:
        assert [entry.id for entry in await store.pending()] == ["e1", "e2"]
        assert [event.message for event in await store.events()] == [EVENT.message, "second"]

    within(tmp_path, look)


def test_damage_found_while_running_rebuilds_the_state(tmp_path: Path) -> None:
    """A call that meets damage gets Transient, and the next one works on a new state.db."""

    async def scenario(store: SQLiteStore) -> None:
        await store.save_record(RECORD)
        with pytest.raises(Transient, match="rebuilt"):
            await store._state.run(report_damage)
        assert list(await store.records()) == []
        with pytest.raises(Broken, match=r"outbox\.db is damaged"):
            await store._outbox.run(report_damage)

    within(tmp_path, scenario)


def test_a_locked_database_is_transient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another program holds the write lock a call fails with Transient, and works afterwards."""
    monkeypatch.setattr(file, "BUSY_TIMEOUT", 0.05)

    async def scenario(store: SQLiteStore) -> None:
        other = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Transient, match="locked by another program") as refusal:
            await store.put(ENTRY)
        assert refusal.value.reason == "StoreBusy"
        other.execute("ROLLBACK")
        other.close()
        await store.put(ENTRY)

    within(tmp_path, scenario)


def test_a_full_disk_is_transient_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """A put that does not fit fails with Transient, reading goes on, and once there is room putting does too."""

    async def scenario(store: SQLiteStore) -> None:
        await store.put(ENTRY)
        await store._outbox.run(lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchone())
        big = replace(ENTRY, id="e2", payload={"filler": "x" * 100_000})
        with pytest.raises(Transient) as refusal:
            await store.put(big)
        assert refusal.value.reason == "DiskFull"
        assert [entry.id for entry in await store.pending()] == ["e1"]
        await store._outbox.run(lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchone())
        await store.put(big)

    within(tmp_path, scenario)


def test_a_read_only_database_is_broken(tmp_path: Path) -> None:
    """A file that cannot be written is Broken with a hint at its permissions, and heals when it can be again."""

    async def scenario(store: SQLiteStore) -> None:
        await store._outbox.run(lambda connection: connection.execute("PRAGMA query_only = ON").fetchone())
        with pytest.raises(Broken, match="cannot be used") as refusal:
            await store.put(ENTRY)
        assert "read and write" in refusal.value.hint
        await store.put(ENTRY)

    within(tmp_path, scenario)


def test_a_directory_that_cannot_be_made_is_broken(tmp_path: Path) -> None:
    """A data directory below a file is refused with a sentence."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Broken, match="cannot be used"):
        within(tmp_path / "file" / "data", _nothing)


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    """A call after closing is Transient, not a hang."""

    async def scenario() -> None:
        async with opened(tmp_path) as store:
            pass
        with pytest.raises(Transient, match="closed"):
            await store.pending()

    asyncio.run(scenario())


@pytest.mark.parametrize(("schema", "way_out"), [(OUTBOX_SCHEMA, False), (STATE_SCHEMA, True)])
def test_a_newer_schema_is_refused(tmp_path: Path, schema: Schema, way_out: bool) -> None:
    """A database of a newer program stops the start; only the state may be deleted instead."""
    within(tmp_path, _nothing)
    connection = sqlite3.connect(tmp_path / schema.file, isolation_level=None)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(Broken, match=r"newer version of CloudLunacy \(schema 99") as refusal:
        within(tmp_path, _nothing)
    assert ("delete the file" in refusal.value.hint) is way_out
    assert not list(tmp_path.glob("*.corrupt-*"))


def test_migrations_run_forward_from_any_version(tmp_path: Path) -> None:
    """An older file gets exactly the migrations it lacks, its rows stay, and a second run does nothing."""
    steps = (("CREATE TABLE a (x)", "INSERT INTO a VALUES (1)"), ("ALTER TABLE a ADD COLUMN y DEFAULT 2",), ())
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    for newest in (1, 2, 3, 3):
        migrate(connection, Schema("a.db", steps[:newest], disposable=False))
        assert connection.execute("PRAGMA user_version").fetchone() == (newest,)
    assert connection.execute("SELECT x, y FROM a").fetchall() == [(1, 2)]
    connection.close()


def test_a_migration_that_fails_leaves_the_version_before(tmp_path: Path) -> None:
    """Of a failing migration nothing stays."""
    steps = (("CREATE TABLE a (x)",), ("CREATE TABLE b (x)", "nonsense"))
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, Schema("a.db", steps, disposable=False))
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("a",)]
    connection.close()


def test_a_row_that_does_not_read_back_is_left_out(tmp_path: Path) -> None:
    """A record, publication or entry whose JSON is damaged is not there; the entry still counts as backlog."""
    fill(tmp_path, entries=2)
    for name, statement in (
        ("outbox.db", "UPDATE outbox SET payload = '{' WHERE id = 'e0'"),
        ("state.db", "UPDATE records SET document = '{}' WHERE rowid = 1"),
    ):
        connection = sqlite3.connect(tmp_path / name)
        connection.execute(statement)
        connection.commit()
        connection.close()

    async def look(store: SQLiteStore) -> None:
        assert [entry.id for entry in await store.pending()] == ["e1"]
        assert (await store.backlog())[0] == 2
        assert len(await store.records(limit=1000)) == 99
        assert await store.record("0" * 40) is None

    within(tmp_path, look)


async def _nothing(store: SQLiteStore) -> None:
    """Open and close."""
