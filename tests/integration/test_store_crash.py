"""Acknowledged means durable: processes that write to the outbox are killed (SIGKILL) at random moments."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Final

from reconciler.store.sqlite import SQLiteStore

KILLS: Final = 60
WRITERS: Final = 8
LONGEST: Final = 0.15
"""Seconds until a writer is killed at the latest; opening the store is among what is cut off."""

WRITER: Final = f"""
import asyncio, itertools, os, pathlib, random, signal, sys, time
from reconciler.store.protocols import EnrolmentToken, OutboxEntry, Publication
from reconciler.store.sqlite import SQLiteStore

def say(text):  # lines this short are whole or not there at all (PIPE_BUF)
    os.write(1, (text + "\\n").encode())

async def write(store, run, writer):
    for number in itertools.count():
        name = f"{{run}}.{{writer}}.{{number}}"
        await store.put(OutboxEntry(name, "enrolment", {{"agent": name, "filler": "x" * 300}}, time.time()))
        say(f"put {{name}}")
        if number % 3 == 1:
            await store.settle({{name: ("committed", "a" * 40)}}, time.time())
            say(f"settled {{name}}")
        if number % 5 == 2:
            await store.add_token(EnrolmentToken(name, "vps-1", "0" * 64, "ann", time.time() + 900))
            await store.use_token(name, "key", time.time())
            say(f"used {{name}}")

async def publish(store):
    while True:
        generation = await store.last_generation() + 1
        await store.save_publication(Publication(generation, "a" * 40, time.time()))
        say(f"published {{generation}}")

async def main(directory, run):
    store = await SQLiteStore.open(pathlib.Path(directory))
    await asyncio.gather(publish(store), *(write(store, run, writer) for writer in range({WRITERS})))

# One process that has imported everything forks the writers and kills each after a while.
chance = random.Random(20)
for run in range({KILLS}):
    writer = os.fork()
    if writer == 0:
        asyncio.run(main(sys.argv[1], run))
    time.sleep(chance.uniform(0.0, {LONGEST}))
    os.kill(writer, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]) == -signal.SIGKILL
"""


def test_no_acknowledged_write_is_missing_after_a_kill(tmp_path: Path) -> None:
    """After sixty kills at random moments every entry, outcome, token and generation that was acknowledged is there."""
    acknowledged: dict[str, set[str]] = {"put": set(), "settled": set(), "used": set(), "published": set()}
    ended = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path)], capture_output=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    for line in ended.stdout.decode().splitlines():
        word, name = line.split(" ")
        acknowledged[word].add(name)

    async def look() -> None:
        store = await SQLiteStore.open(tmp_path)
        try:
            await check(store)
        finally:
            await store.close()

    async def check(store: SQLiteStore) -> None:
        assert store.notices == ()
        pending = {entry.id for entry in await store.pending(1_000_000)}
        settled = {name: await store.outcome(name) for name in acknowledged["put"] - pending}
        assert [name for name, outcome in settled.items() if outcome is None] == []
        assert acknowledged["settled"] & pending == set()
        for name in acknowledged["used"]:
            token = await store.token(name)
            assert token is not None
            assert token.used_by == "key"
        assert await store.last_generation() >= max(map(int, acknowledged["published"]), default=0)

    asyncio.run(look())
    assert len(acknowledged["put"]) > KILLS
    assert acknowledged["settled"]
    assert acknowledged["used"]
