"""Deployments of type process outlive their agent, whenever it ends."""

from __future__ import annotations

import asyncio
import json
import os
import random as randomness
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import psutil
import pytest

from agent.deployments import process_instances as instances
from agent.deployments.observed import Instance
from agent.deployments.process_files import FOLDER, holder
from agent.deployments.process_table import marked
from schemas.session import Item
from tests.integration.processes.test_processes import page
from tests.support.orphans import tied
from tests.support.ports import free_port
from tests.support.process_agent import SECONDS, running, settled, web
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(300)

ROOT: Final = Path(__file__).parents[3]
KILLS: Final = 110


def there(data: Path) -> list[Instance]:
    return [one for key, path in instances.directories(data / FOLDER) for one in instances.read(key, path)]


def keepers(data: Path) -> list[int]:
    """Return every keeper of an agent's programs, without the children that have not become a program yet."""
    lines = {one.pid: " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["pid", "cmdline"])}
    found = [pid for pid, line in lines.items() if "agent.deployments.process_keeper" in line and str(data) in line]
    return [pid for pid in found if _parent(pid) not in (*found, None)]


def _parent(pid: int) -> int | None:
    try:
        return psutil.Process(pid).ppid()
    except psutil.NoSuchProcess:
        return None


def test_killed_at_any_moment_it_ends_as_wanted(data: Path, tmp_path: Path) -> None:
    """An agent that is killed again and again, with something else wanted each time, doubles nothing and arrives."""
    seed = randomness.randrange(2**32)
    random = randomness.Random(seed)
    ports = {"web": free_port(), "api": free_port()}
    wanted = tmp_path / "wanted.json"
    with subprocess.Popen(["/bin/sleep", "1000"]) as foreign, _agent(data) as agent:
        try:
            for _ in range(KILLS):
                versions = [random.choice(["1", "2", "bad"]), random.choice(["1", "2", "3"])]
                child = _begin(agent, wanted, _both(ports, *versions))
                time.sleep(random.uniform(0.0, 0.7))  # the moment of the kill
                _end(agent, child)
                found = there(data)
                assert len([one for one in found if one.key.name == "web" and one.up]) <= 1, f"seed {seed}"
                assert len(found) <= 6, f"seed {seed}"
                # one whose agent was killed before it had its lock may meet the next one's, and one of them leaves
                wait_for(lambda: len(keepers(data)) <= len(there(data)), SECONDS, what=f"one keeper each, seed {seed}")
            child = _begin(agent, wanted, _both(ports, "2", "1"))
            assert agent.stdout is not None
            said = next(line for line in iter(agent.stdout.readline, "") if line in ("settled\n", "ended\n"))
            assert said == "settled\n", f"it died by itself with seed {seed}"
            wait_for(lambda: _answers(data, ports) == {"web": ["2"], "api": ["1"]}, SECONDS, what=f"seed {seed}")
            _end(agent, child)
        finally:
            os.killpg(agent.pid, signal.SIGKILL)
            reached = foreign.poll()
            foreign.kill()
        assert reached is None, "a process of somebody else was ended"
    assert _answers(data, ports) == {"web": ["2"], "api": ["1"]}
    directories = [path for _, path in instances.directories(data / FOLDER)]
    assert not [path for directory in directories for path in directory.glob(".*")], "something was left half done"


def test_nothing_happens_to_programs_while_agents_come_and_go(data: Path) -> None:
    """Ten agents one after the other find what runs, and neither start nor end anything."""
    port = free_port()

    async def once() -> tuple[int, list[int]]:
        async with running(data) as found:
            assert (await settled(found, web("1", port)))["web"].reason == "Running"
            (one,) = there(data)
            return holder(data / FOLDER / "shop" / "web" / one.slot), sorted(marked(one.id))

    first = asyncio.run(once())
    assert all(asyncio.run(once()) == first for _ in range(10))
    assert page(port) == "1"


def test_what_is_lost_comes_back_at_the_port_of_the_last_roll_out(data: Path) -> None:
    """A program whose directory is gone answers again where fronts look for it, not where it is declared."""
    declared = free_port()
    newer = web("2", declared, strategy="blue-green")

    async def roll_out() -> int:
        async with running(data) as found:
            await settled(found, web("1", declared, strategy="blue-green"))
            await settled(found, newer)
            (serving,) = found.observed().values()
            return serving.ports[declared]

    async def come_back() -> int:
        async with running(data) as found:
            await settled(found, newer)
            (serving,) = found.observed().values()
            return serving.ports[declared]

    port = asyncio.run(roll_out())
    assert 20000 <= port <= 29999
    for path in (data / FOLDER / "shop" / "web").iterdir():
        instances.remove(path, SECONDS)
    assert page(port) == ""
    assert asyncio.run(come_back()) == port
    wait_for(lambda: page(port) == "2", SECONDS, what="an answer at the port of the last roll-out")


def _both(ports: dict[str, int], version: str, other: str) -> list[Item]:
    return [web(version, ports["web"]), web(other, ports["api"], name="api", strategy="blue-green")]


def _answers(data: Path, ports: dict[str, int]) -> dict[str, list[str]]:
    """Return what each deployment answers, at every port that one of its instances holds."""
    found: dict[str, list[str]] = {name: [] for name in ports}
    for one in there(data):
        found[one.key.name].append(page(one.ports[ports[one.key.name]]))
    return found


def _agent(data: Path) -> subprocess.Popen[str]:
    program = [sys.executable, "-m", "tests.support.process_agent", str(data)]
    return subprocess.Popen(
        tied(program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    )


def _begin(agent: subprocess.Popen[str], wanted: Path, items: list[Item]) -> int:
    assert agent.stdin is not None
    assert agent.stdout is not None
    wanted.write_text(json.dumps([one.model_dump(mode="json") for one in items]))
    agent.stdin.write(f"{wanted}\n")
    agent.stdin.flush()
    return int(agent.stdout.readline())


def _end(agent: subprocess.Popen[str], child: int) -> None:
    assert agent.stdout is not None
    os.kill(child, signal.SIGKILL)
    assert any(line == "ended\n" for line in agent.stdout), "it died by itself"
