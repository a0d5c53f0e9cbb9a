from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.errors import Transient
from reconciler.store.engine import Mode
from reconciler.store.protocols import Publication, Retained
from reconciler.store.sqlite import GENERATIONS_AHEAD, SQLiteStore
from tests.support.waiting import eventually
from tests.unit.store.contract import (
    ENTRY,
    EVENT,
    RECORD,
    SEEN,
    TOKEN,
    EventContract,
    Opener,
    PromisesContract,
    RebuildableContract,
)
from tests.unit.store.damage import report_damage


@asynccontextmanager
async def opened(directory: Path, interval: float = 0.01) -> AsyncIterator[SQLiteStore]:
    store = await SQLiteStore.open(directory, observation_interval=interval)
    try:
        yield store
    finally:
        await store.close()


def within(directory: Path, scenario: Callable[[SQLiteStore], Awaitable[None]], interval: float = 0.01) -> None:
    async def main() -> None:
        async with opened(directory, interval) as store:
            await scenario(store)

    asyncio.run(main())


class TestContract(PromisesContract, RebuildableContract, EventContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Opener:
        return lambda: opened(tmp_path)


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """A store that is closed and opened again answers as before."""
    publication = Publication(3, "a1" * 20, 1.5, (), {"vps-1": (3, "d")})

    async def fill(store: SQLiteStore) -> None:
        await store.put(ENTRY)
        await store.add_token(TOKEN)
        await store.save_publication(publication)
        await store.save_record(RECORD)
        await store.save_observations([SEEN])
        await store.append(EVENT)

    async def look(store: SQLiteStore) -> None:
        assert list(await store.pending()) == [ENTRY]
        assert await store.token("t1") == TOKEN
        assert await store.publication() == publication
        assert await store.record(RECORD.revision) == RECORD
        assert list(await store.observations()) == [SEEN]
        assert [event.message for event in await store.events()] == [EVENT.message]
        assert store.notices == ()

    within(tmp_path, fill)
    within(tmp_path, look)


def test_the_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Databases and their side files have mode 0600, a directory made for them 0700."""

    async def look(store: SQLiteStore) -> None:
        await store.put(ENTRY)
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "data").iterdir()} == {0o600}
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700

    within(tmp_path / "data", look)


def test_concurrent_puts_share_a_transaction(tmp_path: Path) -> None:
    """Fifty entries put at once are durable after at most three transactions."""

    async def scenario(store: SQLiteStore) -> None:
        before = store._outbox.transactions
        await asyncio.gather(*(store.put(replace(ENTRY, id=f"e{n}")) for n in range(50)))
        assert store._outbox.transactions - before <= 3
        assert len(await store.pending()) == 50

    within(tmp_path, scenario)


def test_heartbeats_are_gathered(tmp_path: Path) -> None:
    """Two thousand observations saved one by one become a few transactions, and the newest of each is written."""

    async def scenario(store: SQLiteStore) -> None:
        before = store._state.transactions
        for number in range(2_000):
            await store.save_observations([replace(SEEN, name=f"vps-{number}")])
            await store.save_observations([replace(SEEN, name=f"vps-{number}", last_seen=51.0)])
        await eventually(lambda: not store._seen, what="the observations were written")
        assert store._state.transactions - before <= 3
        assert {seen.last_seen for seen in await store.observations()} == {51.0}

    within(tmp_path, scenario)


def test_a_forgotten_agent_does_not_come_back_from_memory(tmp_path: Path) -> None:
    """An observation that waits to be written goes too when its agent is forgotten."""

    async def scenario(store: SQLiteStore) -> None:
        await store.save_observations([SEEN])
        await store.forget_agent(SEEN.name)
        assert list(await store.observations()) == []

    within(tmp_path, scenario, interval=60.0)
    within(tmp_path, _is_empty)


async def _is_empty(store: SQLiteStore) -> None:
    assert list(await store.observations()) == []


def test_a_job_that_raises_undoes_its_own_change_only(tmp_path: Path) -> None:
    """In one transaction the failing call gets its error and the others are committed."""

    async def scenario(store: SQLiteStore) -> None:
        await store.add_token(TOKEN)
        answers = await asyncio.gather(
            store.put(ENTRY), store.add_token(TOKEN), store.put(replace(ENTRY, id="e2")), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [type(None), ValueError, type(None)]
        assert [entry.id for entry in await store.pending()] == ["e1", "e2"]

    within(tmp_path, scenario)


def test_the_event_loop_runs_on_while_the_store_works(tmp_path: Path) -> None:
    """A transaction that takes a while does not hold up other tasks."""

    async def scenario(store: SQLiteStore) -> None:
        slow = asyncio.create_task(store._state.run(lambda _: time.sleep(0.3)))
        ticks = 0
        while not slow.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks > 5

    within(tmp_path, scenario)


def test_a_caller_that_gives_up_harms_nobody(tmp_path: Path) -> None:
    """A cancelled call leaves the store usable for the others."""

    async def scenario(store: SQLiteStore) -> None:
        task = asyncio.create_task(store.put(ENTRY))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.put(replace(ENTRY, id="e2"))
        assert "e2" in {entry.id for entry in await store.pending()}

    within(tmp_path, scenario)


def test_text_that_is_not_utf8_is_stored(tmp_path: Path) -> None:
    """A path with undecodable bytes, a NUL or an emoji breaks no call; in a retained object it comes back exactly."""
    odd = "routes/\udcff\x00😀.yaml"

    async def scenario(store: SQLiteStore) -> None:
        event = await store.append(replace(EVENT, message=odd, subject=odd))
        assert (await store.events(after=event.id - 1))[0].message == "routes/?\x00😀.yaml"
        record = replace(RECORD, message=odd, commit={"subject": odd})
        await store.save_record(record)
        stored = await store.record(RECORD.revision)
        assert stored is not None
        assert stored.commit == {"subject": odd}
        await store.put(ENTRY)
        await store.failed(["e1"], odd)

    within(tmp_path, scenario)


def test_the_generation_is_known_without_the_state_database(tmp_path: Path) -> None:
    """After state.db is lost or set back, the last generation is at least the highest that was published."""

    async def publish(store: SQLiteStore, generation: int) -> None:
        await store.save_publication(Publication(generation, "a1" * 20, 1.0))
        assert await store.last_generation() == generation

    async def look(store: SQLiteStore) -> None:
        assert 41 <= await store.last_generation() <= 41 + GENERATIONS_AHEAD

    within(tmp_path, lambda store: publish(store, 1))
    old = (tmp_path / "state.db").read_bytes()
    within(tmp_path, lambda store: publish(store, 41))
    (tmp_path / "state.db").unlink()
    within(tmp_path, look)

    within(tmp_path, lambda store: publish(store, 5000))
    (tmp_path / "state.db").write_bytes(old)

    async def look_again(store: SQLiteStore) -> None:
        assert await store.last_generation() >= 5000

    within(tmp_path, look_again)


def test_the_publication_is_known_without_the_state_database(tmp_path: Path) -> None:
    """After state.db is lost or set back, the newest publication is there, but for what agents have."""
    first = Publication(1, "a1" * 20, 1.0, (), {"vps-1": (1, "d")}, "f1")
    kept = Retained("routes/shop/web.yaml", "b2" * 20, "b1" * 20, ({"code": "unknown-agent"},), [["http.routers"]])
    second = Publication(2, "a2" * 20, 2.0, (kept,), {"vps-1": (1, "d")}, "f2")

    async def publish(store: SQLiteStore, publication: Publication) -> None:
        await store.save_publication(publication)
        await store.confirm_publication(publication.generation)
        assert await store.publication() == replace(publication, confirmed=True)

    async def look(store: SQLiteStore) -> None:
        assert await store.publication() == replace(second, agents=None)
        assert await store.last_generation() > 2

    within(tmp_path, lambda store: publish(store, first))
    old = (tmp_path / "state.db").read_bytes()
    within(tmp_path, lambda store: publish(store, second))
    (tmp_path / "state.db").write_bytes(old)
    within(tmp_path, look)
    (tmp_path / "state.db").unlink()
    within(tmp_path, look)
    within(tmp_path, lambda store: publish(store, replace(second, generation=3)))


def test_event_ids_grow_across_the_loss_of_the_database(tmp_path: Path) -> None:
    """An event of a new database has an id above those of the lost one, so that no reader misses it."""
    ids = []

    async def append(store: SQLiteStore) -> None:
        ids.append((await store.append(EVENT)).id)

    within(tmp_path, append)
    (tmp_path / "state.db").unlink()
    within(tmp_path, append)
    assert ids[1] > ids[0]


def test_the_backlog_counts_pending_entries_and_knows_the_oldest(tmp_path: Path) -> None:
    """The backlog is (0, None) when empty, else the count and the earliest acceptance."""

    async def scenario(store: SQLiteStore) -> None:
        assert await store.backlog() == (0, None)
        await store.put(replace(ENTRY, id="e2", accepted_at=20.0))
        await store.put(ENTRY)
        assert await store.backlog() == (2, 10.0)

    within(tmp_path, scenario)


def test_pruning_keeps_what_is_wanted(tmp_path: Path) -> None:
    """Old events, surplus records and settled entries go; pending entries never do."""

    async def scenario(store: SQLiteStore) -> None:
        events = [await store.append(replace(EVENT, time=float(n))) for n in range(10)]
        assert await store.prune_events(keep=6, before=6.0) == 6
        assert list(await store.events()) == events[6:]
        assert await store.prune_events(keep=1, before=0.0) == 3
        for number in range(5):
            await store.save_record(replace(RECORD, revision=f"{number:040x}", updated_at=float(number)))
        assert await store.prune_records(2) == 3
        assert [record.updated_at for record in await store.records()] == [4.0, 3.0]
        for name in ("e1", "e2"):
            await store.put(replace(ENTRY, id=name, accepted_at=0.0))
        await store.settle({"e1": ("committed", None)}, 1.0)
        assert await store.prune_outbox(100.0) == 1
        assert [entry.id for entry in await store.pending()] == ["e2"]

    within(tmp_path, scenario)


@pytest.mark.parametrize(("mode", "synchronous"), [(Mode.DURABLE, 2), (Mode.WRITE, 1)])
def test_only_durable_writes_wait_for_the_disk(tmp_path: Path, mode: Mode, synchronous: int) -> None:
    """A durable transaction runs with synchronous=FULL (2), an fsync at its commit; any other with NORMAL (1)."""

    async def scenario(store: SQLiteStore) -> None:
        for other in (Mode.WRITE, Mode.DURABLE, mode):
            row = await store._outbox.run(lambda connection: connection.execute("PRAGMA synchronous").fetchone(), other)
        assert row == (synchronous,)

    within(tmp_path, scenario)


def test_a_plan_is_written_once_and_follows_its_record(tmp_path: Path) -> None:
    """A record saved stage by stage keeps its plan; another plan, no plan and a plan without checksum replace it."""

    async def scenario(store: SQLiteStore) -> None:
        for plan in ({"checksum": "1", "a": 1}, {"checksum": "1", "a": 1}, {"checksum": "2"}, None, {"a": 1}, {"a": 2}):
            record = replace(RECORD, plan=plan)
            await store.save_record(record)
            assert await store.record(RECORD.revision) == record
            assert list(await store.records()) == [record]
        await store.prune_records(0)
        assert await store._state.run(lambda c: c.execute("SELECT count(*) FROM plans").fetchone()) == (0,)

    within(tmp_path, scenario)


def test_a_plan_is_written_again_into_a_new_file(tmp_path: Path) -> None:
    """When state.db is replaced, the next save of a record brings its plan back too."""

    async def scenario(store: SQLiteStore) -> None:
        await store.save_record(RECORD)
        with pytest.raises(Transient):
            await store._state.run(report_damage)
        await store.save_record(RECORD)
        assert await store.record(RECORD.revision) == RECORD

    within(tmp_path, scenario)


def test_own_commits_are_known_after_a_restart(tmp_path: Path) -> None:
    """What was put is there, a second time changes nothing, and what is older than a year is forgotten in the end."""
    now = [1_000.0]

    async def scenario() -> None:
        for _ in range(2):
            store = await SQLiteStore.open(tmp_path, clock=lambda: now[0])
            await store.put_own_commits({"a1" * 20: ("agents/vps-1.yaml", "fleet.yaml")})
            assert await store.own_commit("b2" * 20) is None
            await store.close()
        store = await SQLiteStore.open(tmp_path, clock=lambda: now[0])
        assert await store.own_commit("a1" * 20) == ("agents/vps-1.yaml", "fleet.yaml")
        now[0] += 401 * 86_400
        await store.put_own_commits({"b2" * 20: ("agents/vps-2.yaml",)})
        assert await store.own_commit("a1" * 20) is None
        await store.close()

    asyncio.run(scenario())
