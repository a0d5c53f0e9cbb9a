"""What tests start ends with them."""

from __future__ import annotations

import shutil
import subprocess
import sys

import psutil
import pytest

from tests.support.waiting import wait_for

PARENT = """
import subprocess, sys, time
from tests.support.orphans import tied
print(subprocess.Popen(tied([sys.executable, "-c", "import time; time.sleep(600)"])).pid, flush=True)
time.sleep(600)
"""


def test_a_tied_program_ends_with_a_killed_parent() -> None:
    """SIGKILL of the process that started it, which can tear nothing down, ends the program too."""
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv of util-linux, which only Linux has")
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        wait_for(lambda: "setpriv" not in child.name(), what="the program in setpriv's place")
        parent.kill()
    wait_for(lambda: not _lives(child), what="the end of the child")


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
