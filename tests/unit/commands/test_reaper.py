"""What ends with the demo although it was made to outlive whoever started it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.waiting import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")

ESCAPES = """
import os, signal, sys, time
from pathlib import Path
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        if sys.argv[2] == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(sys.argv[1]).write_text(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
time.sleep(600 if sys.argv[3] == "stays" else 0)
sys.exit(7)
"""


@contextmanager
def reaped(note: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A program below a reaper, and the process id of what has escaped from it."""
    command = [sys.executable, "-m", "reconciler.commands.demo.reaper", sys.executable, "-c", ESCAPES, str(note)]
    with subprocess.Popen([*command, *words]) as reaper:
        try:
            wait_for(lambda: note.exists() and note.read_text(), what="the escape")
            yield reaper, int(note.read_text())
        finally:
            reaper.terminate()
            reaper.wait(30)


def test_what_a_command_leaves_ends_with_it(tmp_path: Path) -> None:
    """When the command ends by itself, what it left ends too, and its exit code is passed on."""
    with reaped(tmp_path / "note", "polite", "goes") as (reaper, escaped):
        assert reaper.wait(30) == 7
        assert not psutil.pid_exists(escaped)


def test_everything_ends_when_that_is_asked(tmp_path: Path) -> None:
    """SIGTERM ends the command, and with it what escaped from it."""
    with reaped(tmp_path / "note", "polite", "stays") as (reaper, escaped):
        reaper.send_signal(signal.SIGTERM)
        assert reaper.wait(30) == 128 + signal.SIGTERM
        assert not psutil.pid_exists(escaped)


def test_what_does_not_want_to_end_is_killed(tmp_path: Path) -> None:
    """What ignores SIGTERM is killed after its time."""
    with reaped(tmp_path / "note", "stubborn", "goes") as (reaper, escaped):
        assert reaper.wait(30) == 7
        assert not psutil.pid_exists(escaped)
