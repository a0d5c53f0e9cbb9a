"""Whom an agent tells of a new certificate, and whom it does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.service_world import DAY, ID, World, files, grant, item

PROGRAM = """
import signal, sys
signal.signal(signal.SIGHUP, lambda *_: print("told", flush=True))
open(sys.argv[1], "w").write(str(__import__("os").getpid()))
print("ready", flush=True)
while True:
    signal.pause()
"""


class Reloading:
    """A process that says on its output when it is told."""

    def __init__(self, pid_file: Path) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, pid_file], stdout=subprocess.PIPE, text=True)
        self.heard()

    def heard(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def reloading(run: Path) -> Iterator[Reloading]:
    found = Reloading(run / "orders.pid")
    try:
        yield found
    finally:
        found.kill()


def signalled(run: Path) -> dict[str, Any]:
    return {"reload": {"signal": "HUP", "pidFile": str(run / "orders.pid")}}


def test_a_process_is_told_by_signal(world: World, run: Path, reloading: Reloading) -> None:
    """Once for each certificate, after it is in place."""
    grant(world, f'pid-files = ["{run}"]')
    wanted = item(**signalled(run))
    assert (world.issue(wanted).state, reloading.heard()) == ("Applied", "told")
    world.step(DAY * 0.5)
    world.answer(wanted)
    assert reloading.heard() == "told"
    world.step(60)
    world.restart()
    assert world.apply(wanted)[ID].reason == "Issued", "told before"


def test_a_crash_between_the_swap_and_telling_tells_after_it(world: World, run: Path, reloading: Reloading) -> None:
    """That somebody is to be told is on the disk before the files are in place."""
    wanted = item(**signalled(run))
    world.issue(wanted)  # no grant yet, so nobody was told
    grant(world, f'pid-files = ["{run}"]')
    world.restart()
    assert world.apply(wanted)[ID].reason == "Telling"
    world.step()
    assert reloading.heard() == "told"
    assert world.apply(wanted)[ID].reason == "Issued"
    assert not world.asked


def test_where_nobody_runs_nothing_has_failed(world: World, run: Path) -> None:
    """The item is applied and says so; who starts later is told."""
    grant(world, f'pid-files = ["{run}"]')
    wanted = item(**signalled(run))
    result = world.issue(wanted)
    assert (result.state, result.reason) == ("Applied", "NotRunning")
    late = Reloading(run / "orders.pid")
    try:
        world.step(60)
        assert late.heard() == "told"
        assert world.apply(wanted)[ID].reason == "Issued"
    finally:
        late.kill()
    assert world.step() > 0


def test_a_stale_pid_file_tells_nobody(world: World, run: Path) -> None:
    """The process is gone, the file is not."""
    gone = Reloading(run / "orders.pid")
    gone.kill()
    grant(world, f'pid-files = ["{run}"]')
    assert world.issue(item(**signalled(run))).reason == "NotRunning"


@pytest.mark.parametrize("text", ["", "1", "-1", "0", "abc", "9" * 40, pytest.param(str(os.getpid()), id="own")])
def test_a_strange_pid_file_aims_at_nobody(world: World, run: Path, text: str) -> None:
    """Neither init nor all processes nor the agent itself."""
    (run / "orders.pid").write_text(text)
    grant(world, f'pid-files = ["{run}"]')
    result = world.issue(item(**signalled(run)))
    assert (result.state, result.reason) == ("Failed", "NotTold")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_a_pid_file_aims_only_where_its_owner_could(world: World, run: Path, reloading: Reloading) -> None:
    """A service that can write its pid file must not use the agent's signal on somebody else's process."""
    os.chown(run / "orders.pid", 65534, 65534)
    grant(world, f'pid-files = ["{run}"]')
    result = world.issue(item(**signalled(run)))
    assert result.reason == "NotTold"
    assert "owner" in result.message
    assert reloading.process.poll() is None
    reloading.process.send_signal(signal.SIGHUP)
    assert reloading.heard() == "told", "the only one"


def test_a_command_runs_only_if_the_machine_grants_it(world: World, run: Path) -> None:
    """The repository names it, the machine says what it is; a failure is tried again without another certificate."""
    mark = run / "mark"
    wanted = item(reload={"command": "reload-orders"})
    result = world.issue(wanted)
    assert (result.state, result.reason) == ("Failed", "NotGranted")
    script = f'test -e {run}/allowed && echo "$CLOUDLUNACY_SERVICE $CLOUDLUNACY_DIRECTORY" >> {mark}'
    grant(world, f"[services.commands]\nreload-orders = ['/bin/sh', '-c', '{script}']")
    world.step(10)
    result = world.apply(wanted)[ID]
    assert (result.state, result.reason) == ("Failed", "NotTold")
    assert "status 1" in result.message
    (run / "allowed").touch()
    world.step(10)
    assert world.apply(wanted)[ID].reason == "Issued"
    assert mark.read_text() == f"shop/orders {files(world)}\n"
    assert not world.asked


@pytest.mark.parametrize("command", [["relative"], ["/no/such/program"]])
def test_a_command_that_cannot_be_run_is_said(world: World, command: list[str]) -> None:
    """Nothing else goes wrong with it."""
    grant(world, f"[services.commands]\nreload-orders = {command}")
    result = world.issue(item(reload={"command": "reload-orders"}))
    assert result.state == "Failed"
    assert result.reason in ("NotGranted", "NotTold")


def test_telling_is_tried_later_and_later(world: World, run: Path) -> None:
    """And not in a busy loop."""
    grant(world, "[services.commands]\nreload-orders = ['/bin/false']")
    world.issue(item(reload={"command": "reload-orders"}))
    pauses = []
    for _ in range(5):
        pauses.append(world.step())
        world.step(pauses[-1] + 0.01)
    assert min(pauses) > 0
    assert pauses == sorted(pauses)
    assert pauses[-1] <= 30


def test_nobody_is_told_twice_because_of_a_path(world: World, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data directory may be given relative, or lie behind a symbolic link."""
    (world.data.parent / "link").symlink_to(world.data)
    monkeypatch.chdir(world.data.parent)
    grant(world, f"[services.commands]\nreload = ['/bin/sh', '-c', 'echo >> {run}/told']")
    wanted = item(reload={"command": "reload"})
    world.data = Path("link")
    world.restart()
    world.issue(wanted)
    for _ in range(3):
        world.step(60)
    monkeypatch.chdir("/")
    world.data = run.parent / "data"
    world.restart()
    world.apply(wanted)
    world.step(60)
    assert (run / "told").read_text() == "\n"
    world.apply()
    assert list(files(world).parent.iterdir()) == []
