"""The history of metrics: what was sampled can be asked for, coarser with age, and losing it harms nothing else."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import Transient
from reconciler.store import history
from reconciler.store.downsampling import TIERS, Bucket, Points
from reconciler.store.engine import Database
from reconciler.store.history import History

START = 1_760_000_400 // 21_600 * 21_600
NAMES = ("load", "memory")


class Clock:
    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(directory: Path, clock: Clock) -> AsyncIterator[History]:
    found = await History.open(directory, clock=clock)
    try:
        yield found
    finally:
        await found.close()


async def live(found: History, clock: Clock, seconds: int, *subjects: str, every: int = 20) -> None:
    """Let time pass with a heartbeat of each subject in ``every`` seconds; ``load`` counts up from the start."""
    for _ in range(seconds // every):
        clock.now += every
        for subject in subjects:
            found.sample(subject, clock.now, NAMES, {"load": (clock.now - START) / every, "other": 1.0})
        if clock.now % 60 == 0:
            await found.flush()
            await found.tidy()


def whole(points: Points) -> Bucket:
    buckets = list(points.values())
    result = buckets[0]
    for one in buckets[1:]:
        result = result.with_(one)
    return result


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def test_what_was_just_said_can_be_asked_for(tmp_path: Path) -> None:
    """A sample is part of the answer before anything is written; what is no kept metric never is."""

    async def scenario() -> None:
        clock = Clock()
        async with opened(tmp_path, clock) as found:
            await live(found, clock, 60, "vps-1")
            answer = await found.series("vps-1", START, clock.now + 1)
            assert answer.step == 10
            assert answer.series == {"load": {START + 20 * n: Bucket(1, n, n, n) for n in (1.0, 2.0, 3.0)}}
            assert (await found.series("vps-2", START, clock.now + 1)).series == {}

    run(scenario)


def test_a_day_is_answered_whole_at_every_step(tmp_path: Path) -> None:
    """Sum, smallest and largest of a day are the samples', wherever rows, memory and tiers meet."""

    async def scenario() -> None:
        clock = Clock()
        async with opened(tmp_path, clock) as found:
            await live(found, clock, 30 * 3600, "vps-1")
            samples = 30 * 180
            for step in (900, 1800, 7200):
                answer = await found.series("vps-1", START, clock.now + 1, step=step)
                assert answer.step == step
                expected = Bucket(samples, samples * (samples + 1) / 2, 1.0, samples)
                assert whole(answer.series["load"]) == expected
            recent = await found.series("vps-1", clock.now - 20 * 3600, clock.now + 1)
            assert recent.step == 60
            assert whole(recent.series["load"]).samples == 20 * 180 + 1
            fine = await found.series("vps-1", clock.now - 1800, clock.now + 1)
            assert fine.step == 10
            assert whole(fine.series["load"]).samples == 91

    run(scenario)


def test_a_restart_loses_nothing_that_ended_in_order(tmp_path: Path) -> None:
    """What was gathered in half a row is written at the end, and joined by what comes after the next start."""

    async def scenario() -> None:
        clock = Clock()
        for _ in range(3):
            async with opened(tmp_path, clock) as found:
                await live(found, clock, 100, "vps-1")
        async with opened(tmp_path, clock) as found:
            answer = await found.series("vps-1", START, clock.now + 1)
            assert whole(answer.series["load"]) == Bucket(15, 120.0, 1.0, 15.0)

    run(scenario)


def test_size_is_bounded_by_what_is_kept(tmp_path: Path) -> None:
    """After a long time there are no more rows than the tiers say, and a subject that is gone is forgotten."""

    async def scenario() -> None:
        clock = Clock()
        async with opened(tmp_path, clock) as found:
            await live(found, clock, 3 * 86_400, "vps-1", every=60)
            with sqlite3.connect(tmp_path / "history.db") as connection:
                rows = dict(connection.execute("SELECT tier, count(*) FROM chunks GROUP BY tier").fetchall())
            connection.close()
            assert rows[0] <= (TIERS[0].kept + 2 * TIERS[1].chunk) / TIERS[0].chunk
            assert rows[1] <= (TIERS[1].kept + 2 * TIERS[2].chunk) / TIERS[1].chunk
            assert rows[2] == 3 * 4 - 1
            clock.now += 31 * 86_400
            await found.flush()
            for _ in range(40):
                await found.tidy()
            assert (await found.series("vps-1", 0, clock.now)).series == {}

    run(scenario)


def test_subjects_are_bounded(tmp_path: Path) -> None:
    """Beyond the bound new ones are left out and counted; one that fell silent makes room."""

    async def scenario() -> None:
        clock = Clock()
        found = await History.open(tmp_path, clock=clock)
        found._max = 2
        await live(found, clock, 20, "a", "b", "c")
        assert found.left_out == 1
        clock.now += 4000
        await live(found, clock, 20, "a", "c")
        assert (await found.series("c", clock.now - 60, clock.now + 1)).series.keys() == {"load"}
        await found.close()

    run(scenario)


def test_a_flood_of_messages_is_one_bounded_row(tmp_path: Path) -> None:
    """An agent that says more than anybody needs costs no more memory for it."""

    async def scenario() -> None:
        clock = Clock()
        async with opened(tmp_path, clock) as found:
            for _ in range(5000):
                found.sample("vps-1", clock.now, NAMES, {"load": 1.0})
            assert sum(len(row.samples) for row in found._open.values()) == history.MAX_SAMPLES

    run(scenario)


def test_a_damaged_file_costs_the_past_alone(tmp_path: Path) -> None:
    """It is set aside, said so, and the history goes on from now; also when single rows are damaged."""

    async def scenario() -> None:
        clock = Clock()
        async with opened(tmp_path, clock) as found:
            await live(found, clock, 1200, "vps-1")
        with sqlite3.connect(tmp_path / "history.db") as connection:
            connection.execute("UPDATE chunks SET data = x'00' WHERE start = (SELECT min(start) FROM chunks)")
        connection.close()
        async with opened(tmp_path, clock) as found:
            answer = await found.series("vps-1", START, clock.now + 1)
            assert 0 < whole(answer.series["load"]).samples < 60
        (tmp_path / "history.db").write_bytes(b"no database" * 1000)
        async with opened(tmp_path, clock) as found:
            assert found.notices
            await live(found, clock, 60, "vps-1")
            assert (await found.series("vps-1", START, clock.now + 1)).series

    run(scenario)


def test_without_a_file_nothing_else_is_held_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A directory in its place: samples are dropped, questions are answered with a sentence."""
    (tmp_path / "history.db").mkdir()

    async def scenario() -> None:
        clock = Clock()
        async with opened(tmp_path, clock) as found:
            found.sample("vps-1", clock.now, NAMES, {"load": 1.0})
            await found.flush()
            await found.tidy()
            with pytest.raises(Transient):
                await found.series("vps-1", START, clock.now)

    run(scenario)
    assert "history of metrics is not kept" in caplog.text


def test_a_full_disk_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written is written later, and given up when it is too old."""

    async def scenario() -> None:
        clock = Clock()
        async with opened(tmp_path, clock) as found:
            await live(found, clock, 280, "vps-1")
            clock.now += 600
            whole_run = Database.run

            async def fail(*_: Any, **__: Any) -> None:
                raise Transient("full", reason="DiskFull")

            monkeypatch.setattr(Database, "run", fail)
            with pytest.raises(Transient):
                await found.flush()
            monkeypatch.setattr(Database, "run", whole_run)
            clock.now += history.RETRY + 1
            await found.flush()
            assert not found._open
            answer = await found.series("vps-1", START, clock.now)
            assert whole(answer.series["load"]).samples == 14

    run(scenario)
