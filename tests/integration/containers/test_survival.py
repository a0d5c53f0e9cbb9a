"""Deployments of type container outlive their agent and their engine, whenever either ends."""

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
from typing import Any, Final

import pytest

from schemas.session import Item
from tests.support.container_machine import CHECK, SECONDS, containers, page, running, settled, until, web
from tests.support.deployment_agent import AGENT
from tests.support.engine import Container
from tests.support.networked_engine import NetworkedEngine
from tests.support.orphans import tied
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]

ROOT: Final = Path(__file__).parents[3]


def test_a_restart_of_the_engine_is_survived(machine: NetworkedEngine, tmp_path: Path) -> None:
    """While the engine is away that is said; after it what was good runs again, although no agent was there."""

    async def scenario() -> None:
        async with running(machine, tmp_path) as found:
            await settled(found, web())
            await asyncio.to_thread(machine.shut_down)

            async def says_so() -> bool:
                return [said.reason for said in await found.apply((web(),))] == ["EngineUnavailable"]

            await until(says_so, "word of the engine")
            await asyncio.to_thread(machine.boot)
            assert (await settled(found, web()))["web"].state == "Applied"
        await asyncio.to_thread(machine.shut_down)
        await asyncio.to_thread(machine.boot)
        await until(_answers, "an answer without an agent")
        (shown,) = containers(machine)
        assert shown["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
        assert shown["Config"]["Labels"]["io.cloudlunacy.agent"] == AGENT

    machine.inside(scenario)


def test_what_somebody_broke_is_mended(machine: NetworkedEngine, tmp_path: Path) -> None:
    """A container that was stopped, removed, or lost its network runs again."""

    async def scenario() -> None:
        async with running(machine, tmp_path) as found:
            await settled(found, web())
            for words in (["stop"], ["rm", "--force"]):
                await asyncio.to_thread(machine.command, *words, containers(machine)[0]["Id"])
                await until(_answers, f"an answer after docker {words[0]}")
            assert (await settled(found, web()))["web"].state == "Applied"
        (shown,) = containers(machine)
        machine.command("stop", shown["Id"])
        machine.command("network", "rm", shown["HostConfig"]["NetworkMode"])
        async with running(machine, tmp_path) as found:
            await settled(found, web())
            await until(_answers, "an answer after its network was removed")

    machine.inside(scenario)


def test_what_is_lost_comes_back_at_the_port_of_the_last_roll_out(machine: NetworkedEngine, tmp_path: Path) -> None:
    """A container that is removed while no agent is there answers again where fronts look for it, not where it is
    declared."""

    async def scenario() -> None:
        newer = web("web:2", strategy="blue-green")
        async with running(machine, tmp_path) as found:
            await settled(found, web(strategy="blue-green"))
            await settled(found, newer)
            (serving,) = found.observed().values()
        port = serving.ports[8080]
        assert 20000 <= port <= 29999
        for shown in containers(machine):
            machine.command("rm", "--force", shown["Id"])
        async with running(machine, tmp_path) as found:
            await settled(found, newer)
            (serving,) = found.observed().values()
            assert serving.ports == {8080: port}
            await until(lambda: _answers(port, "version 2"), "an answer at the port of the last roll-out")

    machine.inside(scenario)


KILLS: Final = 30


def patient(image: str, *, strategy: str = "recreate", **more: Any) -> Item:
    """Return an app that a busy machine does not make ill: what is tried here is what kills do, and nothing else."""
    check = {**CHECK, "timeout": "5s", "startPeriod": "1m", "failures": 5}
    return web(image, healthCheck=check, rollout={"strategy": strategy, "deadline": "2m"}, **more)


def test_killed_at_any_moment_it_ends_as_wanted(machine: NetworkedEngine, tmp_path: Path) -> None:
    """An agent that is killed again and again, with something else wanted each time, doubles nothing and arrives."""
    seed = randomness.randrange(2**32)
    random = randomness.Random(seed)
    foreign = machine.start("web:1", "sleep", "1000", options=["--network", "none"])
    before = foreign.state
    data, wanted = tmp_path / "data", tmp_path / "wanted.json"
    data.mkdir()
    program = [sys.executable, "-m", "tests.support.deployment_agent", machine.socket, str(data)]
    entered = ["nsenter", f"--net={machine.namespace}", "--", *program]
    agent = subprocess.Popen(
        tied(entered), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    )
    try:
        assert agent.stdin is not None
        assert agent.stdout is not None

        def begin(*items: Item) -> int:
            assert agent.stdin is not None
            assert agent.stdout is not None
            wanted.write_text(json.dumps([one.model_dump(mode="json") for one in items]))
            agent.stdin.write(f"{wanted}\n")
            agent.stdin.flush()
            return int(agent.stdout.readline())

        def end(child: int) -> None:
            assert agent.stdout is not None
            os.kill(child, signal.SIGKILL)
            assert any(line == "ended\n" for line in agent.stdout), "it died by itself"

        for _ in range(KILLS):
            child = begin(
                patient(random.choice(["web:1", "web:2", "127.0.0.1:9/web:9"])),
                patient(random.choice(["web:1", "web:2"]), name="api", host=8082, strategy="blue-green"),
            )
            time.sleep(random.uniform(0.0, 0.8))  # the moment of the kill
            end(child)
            shown = machine.command("ps", "--all", "--filter", "name=cloudlunacy", "--format", "{{.Names}} {{.State}}")
            lines = shown.stdout.splitlines()
            assert len([line for line in lines if "_web_" in line and line.endswith("running")]) <= 1, f"seed {seed}"
            assert len(lines) <= 6, f"seed {seed}"
        last = begin(patient("web:2"), patient("web:1", name="api", host=8082, strategy="blue-green"))
        said = next(line for line in iter(agent.stdout.readline, "") if line in ("settled\n", "ended\n"))
        assert said == "settled\n", f"it died by itself with seed {seed}"
        wanted_images = {("web", "web:2"), ("api", "web:1")}
        wait_for(lambda: _ours(machine, foreign) == wanted_images, SECONDS, what=f"an end with seed {seed}")
        end(last)
    finally:
        os.killpg(agent.pid, signal.SIGKILL)
        agent.communicate()
    assert foreign.state == before
    assert machine.command("network", "ls", "--quiet", "--filter", "name=cloudlunacy").stdout.count("\n") == 2


def _ours(machine: NetworkedEngine, foreign: Container) -> set[tuple[str, str]]:
    ours = [one for one in containers(machine) if one["Id"] != foreign.id]
    found = {(one["Config"]["Hostname"], one["Config"]["Image"]) for one in ours if one["State"]["Running"]}
    return found if len(found) == len(ours) else set()


async def _answers(port: int = 8081, text: str = "version 1") -> bool:
    try:
        return await page(port) == text
    except OSError:
        return False
