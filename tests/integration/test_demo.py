"""``cloudlunacy demo`` as a person runs it: the real git, Traefik and MongoDB, and what is left when it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from reconciler.commands.demo.folder import open_folder
from schemas.status import STAGES
from tests.support.demo import DEADLINE, UP, RunningDemo
from tests.support.parts import require
from tests.support.waiting import wait_for


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningDemo]:
    """A demo that is coming up and will stay."""
    require("git")
    require("traefik")
    demo = RunningDemo(tmp_path)
    try:
        yield demo
    finally:
        demo.close()


def test_once_pushes_a_change_and_prints_its_whole_record(tmp_path: Path) -> None:
    """``demo --once`` ends with 0, a record in which every stage was reached, and no process left."""
    for part in ("git", "traefik", "mongod"):
        require(part)
    options = ["--once", "--free-ports", "--dir", str(tmp_path / "demo"), "--timeout", str(DEADLINE)]
    finished = subprocess.run(
        [sys.executable, "-m", "reconciler", "demo", *options, "--format", "json"],
        capture_output=True,
        text=True,
        timeout=DEADLINE + 30,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    record = json.loads(finished.stdout)
    times = [record["stages"][stage] for stage in STAGES]
    assert record["state"] == "Converged"
    assert None not in times
    assert times == sorted(times)
    assert record["agents"]["vps-1"]["state"] == "applied"
    assert record["rollouts"]["shop/api"]["state"] == "Done"
    assert re.search(r"its new version took over, and none of [1-9][0-9]* requests failed", finished.stderr)
    assert "vps-1.mongodb.cloudlunacy.test keeps what is written through Traefik" in finished.stderr
    assert [p.pid for p in psutil.process_iter(["cwd"]) if str(tmp_path) in (p.info["cwd"] or "")] == []


def test_a_push_is_told_and_ctrl_c_ends_everything(running: RunningDemo) -> None:
    """While it stays, a push to the remote is told stage by stage with its problems; Ctrl-C leaves no process."""
    running.wait_for(UP)
    route = running.directory / "work" / "routes" / "shop" / "web.yaml"
    route.write_text(route.read_text().replace("vps-1", "vsp-1"))
    running.git("commit", "--quiet", "--all", "--message", "A typo")
    running.git("push", "--quiet")
    running.wait_for("1 problem(s)")
    told = running.said.partition(UP)[2]
    assert "“A typo” by " in told
    assert [stage for stage in STAGES if re.search(rf"^  {stage} +\d\d:", told, re.MULTILINE)] == list(STAGES)
    assert 'routes/shop/web.yaml:13:15 unknown-agent: backend names agent "vsp-1"' in told

    assert running.end(signal.SIGINT) == 0
    assert running.children() == {}


def test_a_signal_while_it_comes_up_ends_everything(running: RunningDemo) -> None:
    """SIGTERM before the fleet is up ends what was started, and the exit code says so."""
    running.wait_for("Traefik at")
    assert running.end(signal.SIGTERM) == 128 + signal.SIGTERM
    assert "interrupted by SIGTERM" in running.said
    assert running.children() == {}


def test_a_part_that_dies_ends_the_demo_with_its_last_words(running: RunningDemo) -> None:
    """When a process dies, the demo ends with 1, names it and shows the end of its log."""
    running.wait_for("control plane at")
    running.child("reconciler serve").kill()
    assert running.process.wait(60) == 1
    assert "cloudlunacy: serve has ended with signal 9. The end of" in running.said
    assert "listening" in running.said
    assert running.children() == {}


def test_no_process_outlives_a_killed_demo(running: RunningDemo) -> None:
    """SIGKILL of the demo itself takes its processes along, also what its agents run."""
    if sys.platform != "linux":
        pytest.skip("only Linux tells a process that its parent has died")
    running.wait_for("agent vps-2")
    assert running.child("process_keeper")
    assert running.end(signal.SIGKILL) == -signal.SIGKILL
    wait_for(lambda: not running.children(), 30, what="the end of every process")


def test_what_was_left_running_ends_at_the_next_start(running: RunningDemo) -> None:
    """When even those were killed who look after the end, the next demo in the same directory ends what is left."""
    if sys.platform != "linux":
        pytest.skip("as above")
    running.wait_for("agent vps-2")
    killed = [one for line, one in running.children().items() if "demo.reaper" in line or "agent run" in line]
    running.end(signal.SIGKILL)
    for one in killed:
        with suppress(psutil.Error):
            one.kill()
    kept = [one for line, one in running.children().items() if "process_keeper" in line]
    with open_folder(running.directory, keep=True):
        assert not [one for one in kept if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    wait_for(lambda: not running.children(), 30, what="the end of every process")


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """A directory that no demo made is not emptied."""
    (tmp_path / "mine.txt").write_text("precious")
    finished = subprocess.run(
        [sys.executable, "-m", "reconciler", "demo", "--once", "--dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ},
    )
    assert finished.returncode == 1
    assert "holds files that no demo made" in finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
