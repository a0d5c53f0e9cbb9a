from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.errors import Broken
from reconciler.store.lock import DataDirectoryLock

HOLD = """
import sys, pathlib
from reconciler.store.lock import DataDirectoryLock
DataDirectoryLock(pathlib.Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    """While another process holds the lock it is refused with that process's id; once it is killed it is free."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Broken, match=rf"in use by process {holder.pid}\b"):
            DataDirectoryLock(tmp_path).acquire()
        holder.kill()
        holder.wait()
    with DataDirectoryLock(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_lock_is_free_after_release(tmp_path: Path) -> None:
    """Releasing lets another holder in; releasing twice and acquiring twice are harmless."""
    first = DataDirectoryLock(tmp_path / "new")
    first.acquire()
    first.acquire()
    second = DataDirectoryLock(tmp_path / "new")
    with pytest.raises(Broken):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()


def test_a_place_that_is_no_directory_is_broken(tmp_path: Path) -> None:
    """A file, or a link in place of the lock file, is refused with a sentence."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Broken, match="cannot be used"):
        DataDirectoryLock(tmp_path / "file").acquire()
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Broken, match="cannot be used"):
        DataDirectoryLock(tmp_path).acquire()
    assert not (tmp_path / "elsewhere").exists()
