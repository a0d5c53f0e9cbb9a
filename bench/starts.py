"""Starting with 10,000 objects, against reading their blobs with one ``git cat-file --batch``.

Cold: the data directory holds the fetched mirror and nothing else; until everything is parsed, settled, planned,
rendered and the front's file is in place. Warm: after an ordinary end; until the loop can reconcile. Each start is a
process of its own, whose clock starts when its modules are imported; opening store and keys counts.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from bench.pairs import Pairs, Row, timed
from bench.plane import plane, settings
from bench.state_repo import AGENTS_SHARE, BareRepo, git, route, route_path, tree

OBJECTS: Final = 10_000
ROUNDS: Final = 5


def measure_starts(folder: Path) -> list[Row]:
    """Return the rows of cold and warm starts."""
    remote = BareRepo(folder / "remote.git", tree(OBJECTS))
    asyncio.run(_prepare(remote, folder))
    blobs = _blobs(remote.path)
    cold, preflighted, warm = Pairs(), Pairs(), Pairs()
    for number in range(ROUNDS):
        cold.add(_start("cold", remote.path, folder, f"cold-{number}"), _read_blobs(folder, blobs))
        warm.add(_start("warm", remote.path, folder, f"warm-{number}"), _read_blobs(folder, blobs))
    preflighted.add(_start("whole", remote.path, folder, "whole"), _read_blobs(folder, blobs))
    against = "reading the blobs with git cat-file --batch"
    return [
        cold.row(f"cold start, {OBJECTS:,} objects", against, 12.0, notes="mirror fetched, until the file is in place"),
        preflighted.row("… with a throwaway Traefik that loads all of it first", against, 12.0, counts=False),
        warm.row(f"warm start, {OBJECTS:,} objects", against, 6.0, notes="until the loop can reconcile"),
    ]


async def _prepare(remote: BareRepo, folder: Path) -> None:
    """Leave behind what a control plane leaves that ended in order, some time after a commit of one file."""
    async with plane(settings(remote.path, folder / "model", traefik="/nowhere")) as running:
        await running.resume()
        await running.loop.reconcile_once()
        remote.push({route_path(0): route(0, agents=OBJECTS // AGENTS_SHARE, average=7)})
        await running.loop.reconcile_once()
        await running.loop.reconcile_once()


def _start(kind: str, remote: Path, folder: Path, name: str) -> float:
    place = folder / name
    if kind == "warm":
        shutil.copytree(folder / "model", place, symlinks=True)
    else:
        shutil.copytree(folder / "model" / "data" / "mirror", place / "data" / "mirror")
    command = [sys.executable, "-m", "bench.starts", kind, str(remote), str(place)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    shutil.rmtree(place)
    return float(json.loads(finished.stdout))


async def _started(kind: str, remote: Path, place: Path) -> float:
    given = settings(remote, place, traefik="" if kind == "whole" else "/nowhere")
    began = time.perf_counter()
    async with plane(given) as running:
        await running.resume()
        if kind == "warm":
            took = time.perf_counter() - began
            if len(running.loop.published.state.served) != OBJECTS:
                raise SystemExit("not everything is there again")
            return took
        await running.loop.reconcile_once()
        if running.loop.published.generation != 1:
            raise SystemExit("nothing was published")
        return running.published_at - began


def _blobs(repository: Path) -> bytes:
    listed = git("-C", repository, "ls-tree", "-r", "--format=%(objectname)", "main")
    return f"{listed}\n".encode()


def _read_blobs(folder: Path, blobs: bytes) -> float:
    mirror = folder / "model" / "data" / "mirror" / "repository.git"
    with timed() as watch:
        command = ["git", "-C", str(mirror), "cat-file", "--batch", "--buffer"]
        subprocess.run(command, input=blobs, stdout=subprocess.PIPE, check=True)
    return watch.seconds


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_started(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))))
