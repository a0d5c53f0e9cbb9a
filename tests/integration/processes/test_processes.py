"""Deployments of type process with real programs: their ports, their ends, their logs, and their beginnings anew."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import time
import urllib.request
from pathlib import Path
from typing import Final

import psutil
import pytest

from agent.deployments import process_log
from agent.deployments.observed import Instance
from agent.deployments.process_confinement import Means
from agent.deployments.process_driver import ProcessDriver, ProcessSettings
from agent.deployments.process_files import FOLDER, KEPT, Record, Status, holder
from agent.deployments.process_machine import Found
from agent.deployments.process_table import marked
from tests.support.ports import free_port
from tests.support.process_agent import AGENT, SECONDS, SETTINGS, running, running_with, script, settled, web
from tests.support.waiting import eventually, wait_for

UNCONFINED: Final = ProcessSettings(unconfined=True)
NOTHING: Final = Found(Means(), "bubblewrap is not installed")


def page(port: int) -> str:
    """Ask a server of a test; empty where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            found: bytes = answer.read()
            return found.decode()
    except OSError:
        return ""


def slot(data: Path, name: str = "web", letter: str = "a") -> Path:
    return data / FOLDER / "shop" / name / letter


def instance_id(path: Path) -> str:
    return Record.read(path).id


async def lines_of(data: Path, name: str, word: str) -> list[str]:
    """Wait until a word is in a log; return its lines."""
    path = slot(data, name)
    await eventually(lambda: any(word in line for line in process_log.tail(path, 100)), SECONDS, what=word)
    return process_log.tail(path, 100)


def test_a_program_runs_is_replaced_and_goes(data: Path) -> None:
    """What is wanted answers at its port, its next version takes its place, and without its item nothing is left."""
    port = free_port()

    async def scenario() -> None:
        async with running(data) as found:
            for version in ("1", "2"):
                assert (await settled(found, web(version, port)))["web"].reason == "Running"
                assert await asyncio.to_thread(page, port) == version
            await settled(found)
            await eventually(lambda: not list((data / FOLDER).glob("*/*")), SECONDS, what="an empty directory")
        assert page(port) == ""

    asyncio.run(scenario())


def test_blue_green_never_stops_answering(data: Path) -> None:
    """The new version comes up at another port while the old one answers; each answer is of one of the two."""
    port = free_port()

    async def scenario() -> None:
        async with running(data) as found:
            await settled(found, web("1", port, strategy="blue-green"))
            new = web("2", port, strategy="blue-green")
            await found.apply((new,))
            answers = []

            async def switched() -> bool:
                for serving in found.observed().values():  # none before somebody has looked
                    answers.append(await asyncio.to_thread(page, serving.ports[port]))  # noqa: PERF401  awaits
                return "2" in answers

            _: bool = await eventually(switched, SECONDS, what="the new version")
            assert (await settled(found, new))["web"].state == "Applied"
            assert set(answers) == {"1", "2"}
            (serving,) = found.observed().values()
            assert 20000 <= serving.ports[port] <= 29999
            await eventually(lambda: page(port) == "", SECONDS, what="the end of the old version")

    asyncio.run(scenario())


def test_a_bad_version_goes_back_and_says_why(data: Path) -> None:
    """The former version answers again, and the result has the last lines of the one that ended."""
    port = free_port()

    async def scenario() -> None:
        async with running(data) as found:
            await settled(found, web("1", port))
            said = (await settled(found, web("bad", port)))["web"]
            assert (said.state, said.reason) == ("Failed", "Exited")
            assert "last lines: it is broken" in said.message
            await eventually(lambda: page(port) == "1", SECONDS, what="the former version")

    asyncio.run(scenario())


def test_a_port_that_somebody_has_is_said(data: Path) -> None:
    """A program is not started at a port where another one listens, and it is once that is gone."""
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        port = foreign.getsockname()[1]

        async def scenario() -> None:
            async with running(data) as found:
                said = (await settled(found, web("1", port)))["web"]
                assert (said.state, said.reason) == ("Failed", "PortTaken")
                assert f"Port {port} is in use by another program" in said.message

        asyncio.run(scenario())


def test_a_program_that_ends_is_started_again_without_an_agent(data: Path) -> None:
    """Between two agents somebody kills it; it answers again, and the next agent finds it and starts nothing."""
    port = free_port()

    async def with_agent() -> str:
        async with running(data) as found:
            assert (await settled(found, web("1", port)))["web"].state == "Applied"
            await eventually((slot(data) / KEPT).exists, SECONDS, what="the word that it is good")
        return instance_id(slot(data))

    before = asyncio.run(with_agent())
    keeper = holder(slot(data))
    for _ in range(2):
        victim = max(psutil.Process(keeper).children(recursive=True), key=lambda one: one.pid)
        victim.kill()
        victim.wait(SECONDS)
        wait_for(lambda: page(port) == "1", SECONDS, what="its return")
    status = Status.read(slot(data))
    assert status is not None
    assert (status.state, status.restarts) == ("running", 2)
    assert asyncio.run(with_agent()) == before
    assert holder(slot(data)) == keeper


def test_pauses_between_restarts_grow(data: Path) -> None:
    """A good version that begins to end is started later and later, and the result says so."""
    text = (
        "import os, sys, time; open(os.environ['VOLUME_ALL'] + '/at', 'a').write(f'{time.time()}\\n'); time.sleep(%s)"
    )
    volume = {"volumes": [{"name": "all", "path": "/all"}]}

    async def scenario() -> list[float]:
        async with running(data) as found:
            item = script("web", text % 0.6, **volume)
            await settled(found, item)
            at = slot(data).parent / "volumes" / "all" / "at"
            await eventually(lambda: at.read_text().count("\n") >= 4, SECONDS, what="three restarts")

            async def said() -> bool:
                return (await settled(found, item))["web"].reason == "Restarting"

            _: bool = await eventually(said, SECONDS, what="word of it")
            return [float(line) for line in at.read_text().split()]

    times = asyncio.run(scenario())
    said = [line.rpartition(" in ")[2] for line in process_log.tail(slot(data), 100) if "started again" in line]
    assert said[:3] == ["0.5 s]", "1 s]", "2 s]"]
    waited = [after - before for before, after in itertools.pairwise(times)]
    assert all(one >= 0.6 + pause for one, pause in zip(waited, (0.5, 1.0, 2.0), strict=False))


STUBBORN: Final = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for depth in range(2):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""
POLITE: Final = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("goodbye", flush=True)))
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("settings", [SETTINGS, UNCONFINED], ids=["confined", "unconfined"])
def test_nothing_outlives_a_program_that_does_not_want_to_end(data: Path, settings: ProcessSettings) -> None:
    """What ignores SIGTERM is killed after the grace, with everything that it hid in sessions of its own."""

    async def scenario() -> None:
        driver = driver_of(data, settings)
        async with running_with(data, driver) as found:
            await settled(found, script("web", STUBBORN))
            await lines_of(data, "web", "ready")
            identity = instance_id(slot(data))
            assert len(marked(identity)) >= 4
            began = time.monotonic()
            await settled(found)
            await eventually(lambda: not marked(identity), SECONDS, what="the end of all")
            assert time.monotonic() - began >= 1.0  # not before its grace

    asyncio.run(scenario())


def test_a_program_that_ends_in_order_is_given_the_time(data: Path) -> None:
    """SIGTERM comes first, and what it writes then is in its log."""

    async def scenario() -> list[str]:
        async with running(data) as found:
            await settled(found, script("web", POLITE))
            await lines_of(data, "web", "ready")
            driver = driver_of(data, SETTINGS)
            (one,) = (await driver.observe()).instances
            followed = asyncio.create_task(collect(driver, one))
            await asyncio.sleep(0)  # let it begin
            await settled(found)
            return await followed

    assert asyncio.run(scenario()) == ["ready", "goodbye"]


@pytest.mark.parametrize("settings", [SETTINGS, UNCONFINED], ids=["confined", "unconfined"])
def test_a_killed_keeper_leaves_nothing_and_is_replaced(data: Path, settings: ProcessSettings) -> None:
    """With kill -9 of the keeper its program and all its kin end, and the agent starts it again, once."""

    async def scenario() -> None:
        driver = driver_of(data, settings)
        async with running_with(data, driver) as found:
            item = script("web", STUBBORN)
            await settled(found, item)
            await lines_of(data, "web", "ready")
            before, keeper = set(marked(instance_id(slot(data)))), holder(slot(data))
            os.kill(keeper, signal.SIGKILL)
            await eventually(lambda: holder(slot(data)) not in (0, keeper), SECONDS, what="another keeper")
            await settled(found, item)
            assert not before & set(marked(instance_id(slot(data))))

    asyncio.run(scenario())


def test_a_program_that_is_not_there_is_said(data: Path) -> None:
    """The name of what cannot be started is in the result; with bubblewrap it is in its last lines."""

    async def scenario(settings: ProcessSettings) -> str:
        async with running_with(data, driver_of(data, settings)) as found:
            item = web("1", free_port())
            item.spec["command"] = ["/usr/bin/no-such-program"]
            said = (await settled(found, item))["web"]
            await settled(found)
            assert said.state == "Failed"
            return f"{said.reason}: {said.message}"

    assert asyncio.run(scenario(UNCONFINED)) == (
        "CannotStart: The program cannot be started: /usr/bin/no-such-program: No such file or directory."
    )
    assert "no-such-program: No such file or directory" in asyncio.run(scenario(SETTINGS))


def test_without_bubblewrap_nothing_is_started_unless_that_was_allowed(data: Path, tmp_path: Path) -> None:
    """An agent that cannot confine says so and what to do; its settings may allow it all the same."""

    async def scenario(settings: ProcessSettings, agent: Path) -> str:
        driver = ProcessDriver(agent, AGENT, settings, machine=lambda: NOTHING)
        async with running_with(agent, driver) as found:
            said = (await settled(found, script("web", POLITE)))["web"]
            return f"{said.state} {said.reason}: {said.message}"

    text = "It is not started, because it would not be confined: bubblewrap is not installed."
    assert asyncio.run(scenario(ProcessSettings(), tmp_path / "other")) == f"Failed NotIsolated: {text}"
    assert asyncio.run(scenario(UNCONFINED, data)).startswith("Applied Running")


def test_a_flood_of_output_neither_stops_the_program_nor_fills_the_disk(data: Path) -> None:
    """Fifty megabytes are written in no time, and three files of ten are left, with the last line in them."""
    text = "for n in range(500000): print(n, 'x' * 92)\nprint('done', flush=True)\nimport time; time.sleep(600)"

    async def scenario() -> None:
        async with running(data) as found:
            await settled(found, script("web", text))
            await lines_of(data, "web", "done")
        sizes = [path.stat().st_size for path in slot(data).glob("log*")]
        assert len(sizes) == 3
        assert sum(sizes) < 31_000_000
        assert process_log.tail(slot(data), 2)[-1] == "done"

    asyncio.run(scenario())


def driver_of(data: Path, settings: ProcessSettings) -> ProcessDriver:
    if settings is UNCONFINED:
        return ProcessDriver(data, AGENT, settings, machine=lambda: NOTHING)
    return ProcessDriver(data, AGENT, settings)


async def collect(driver: ProcessDriver, instance: Instance) -> list[str]:
    return [line async for line in driver.logs(instance, tail=10, follow=True)]
