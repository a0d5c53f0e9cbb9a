"""Enrolments against a real git remote and the real store: commits, races with people, and kill -9."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from reconciler.git.mirror import Mirror
from reconciler.git.remote import Remote
from reconciler.git.write_back import WriteBack
from reconciler.store.sqlite import SQLiteStore
from tests.support.git_repos import EPOCH, BareRepo, git
from tests.support.tokens import new_key, thumbprint
from tests.support.waiting import eventually
from tests.unit.agents.enrolling import Plane, World, fleet, plane, request

AGENTS = re.compile(r"agents/[a-z0-9-]+\.yaml")
KEY = new_key()
PEER = "192.0.2.7"


@pytest.fixture
def remote(tmp_path: Path) -> BareRepo:
    repo = BareRepo.create(tmp_path / "srv" / "remote.git")
    repo.commit({"fleet.yaml": "fleet", "agents/old.yaml": "old"}, message="Start")
    return repo


@asynccontextmanager
async def opened(data: Path, url: Path, world: World) -> AsyncIterator[Plane]:
    """One process of the control plane on ``data``, as far as enrolment is concerned."""
    store = await SQLiteStore.open(data)
    mirror = Mirror(data / "mirror", Remote.parse(str(url)), "main")
    try:
        async with plane(world, store=store, pusher=WriteBack(mirror, allowed=AGENTS)) as one:
            yield one
    finally:
        await mirror.close()
        await store.close()


def run(tmp_path: Path, remote: BareRepo, scenario: Callable[[Plane], Awaitable[object]], world: World) -> None:
    async def main() -> None:
        async with opened(tmp_path / "data", remote.path, world) as one:
            await scenario(one)

    asyncio.run(main())


async def enrol(one: Plane, name: str) -> str:
    answer = await one.enrolments.enrol(request(KEY, await one.token(name), name, now=one.world.now), peer=PEER)
    assert answer.state == "committed"
    return answer.revision or ""


def test_an_enrolment_is_a_commit_of_its_own(tmp_path: Path, remote: BareRepo) -> None:
    """The commit has the agent as author, the trailers, and changes its file and nothing else."""
    revisions: list[str] = []

    async def scenario(one: Plane) -> None:
        revisions.append(await enrol(one, "vps-9"))

    run(tmp_path, remote, scenario, World())
    shown = git("-C", remote.path, "show", "--format=%an|%ae|%s|%(trailers:only,unfold)", "--name-only", revisions[0])
    lines = [line for line in shown.splitlines() if line]
    assert remote.tip() == revisions[0]
    assert lines[0].startswith("vps-9|vps-9@agents.cloudlunacy.test|Enrol agent vps-9|CloudLunacy-")
    assert {line.split("|")[-1].split(":")[0] for line in lines[:-1]} == {
        "CloudLunacy-Request",
        "CloudLunacy-Token",
        "CloudLunacy-Thumbprint",
    }
    assert lines[-1] == "agents/vps-9.yaml"
    assert thumbprint(KEY) in remote.show("agents/vps-9.yaml")


def test_many_at_once_race_with_people_and_lose_nobody(tmp_path: Path, remote: BareRepo) -> None:
    """While people push to the same branch, sixty enrolments all arrive and no commit of theirs is dropped."""

    async def people() -> None:
        for number in range(15):
            await asyncio.to_thread(remote.push_on_top, {f"routes/{number}.yaml": "x"}, message=f"Person {number}")
            await asyncio.sleep(0.02)

    async def scenario(one: Plane) -> None:
        await asyncio.gather(people(), *(enrol(one, f"a{number}") for number in range(60)))

    run(tmp_path, remote, scenario, World(answer_seconds=60.0, fleet=fleet()))
    files = git("-C", remote.path, "ls-tree", "-r", "--name-only", "main").split()
    assert {f"agents/a{number}.yaml" for number in range(60)} <= set(files)
    assert {f"routes/{number}.yaml" for number in range(15)} <= set(files)


def test_revocation_before_the_restart_stays(tmp_path: Path, remote: BareRepo) -> None:
    """Killed between push and note, the agent's file deleted meanwhile: the restart takes note and pushes nothing."""

    async def killed(one: Plane) -> None:
        one.store.settle = hang
        call = asyncio.create_task(enrol(one, "vps-9"))
        await eventually(lambda: "Enrol agent vps-9" in remote.log(), 30)
        call.cancel()

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    async def restarted(one: Plane) -> None:
        await eventually(lambda: not one.committer.backlog, 30)
        token = git("-C", remote.path, "log", "-1", "--format=%(trailers:key=CloudLunacy-Token,valueonly)", enrolled)
        assert await one.store.outcome(f"enrol-{token.strip()}") == ("committed", enrolled)

    run(tmp_path, remote, killed, World(now=EPOCH))
    enrolled = remote.tip() or ""
    revoked = remote.commit({"agents/vps-9.yaml": None}, message="Revoke vps-9")
    run(tmp_path, remote, restarted, World(now=EPOCH))
    assert remote.tip() == revoked


CHILD = """
import asyncio, sys
from pathlib import Path
from tests.integration.test_enrolment_commit import opened, enrol, World

async def one_after_another(one, start):
    for number in range(start, 10_000, 8):
        await enrol(one, f"a{number}")
        print(f"acknowledged a{number}", flush=True)

async def main():
    async with opened(Path(sys.argv[1]), Path(sys.argv[2]), World(answer_seconds=60.0)) as one:
        one.enrolments._callers._capacity = 10_000
        await asyncio.gather(*(one_after_another(one, start) for start in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledged", [1, 7, 23])
def test_a_killed_control_plane_has_lost_no_acknowledged_enrolment(
    tmp_path: Path, remote: BareRepo, acknowledged: int
) -> None:
    """SIGKILL while enrolments come in: what was acknowledged is on the remote, what was queued follows by itself."""
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, tmp_path / "data", remote.path],
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,
        text=True,
    )
    assert child.stdout is not None
    seen = ""
    while seen.count("\nacknowledged ") < acknowledged and (line := child.stdout.readline()):
        seen += line
    os.killpg(child.pid, signal.SIGKILL)
    seen += child.communicate()[0]
    names = re.findall(r"^acknowledged (a[0-9]+)$", seen, re.MULTILINE)
    assert len(names) >= acknowledged

    async def drained(one: Plane) -> None:
        pending = {str(entry.payload["name"]) for entry in await one.store.pending()}
        await eventually(lambda: not one.committer.backlog, 30)
        files = git("-C", remote.path, "ls-tree", "-r", "--name-only", "main").split()
        assert {f"agents/{name}.yaml" for name in {*names, *pending}} <= set(files)

    run(tmp_path, remote, drained, World())
    subjects = git("-C", remote.path, "log", "--format=%s", "main").splitlines()
    assert len(subjects) == len(set(subjects))
