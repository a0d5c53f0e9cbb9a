"""A keeper that has not come to its lock when its agent is killed: nobody sees it, and it starts nothing later."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from agent.deployments import process_instances as instances
from agent.deployments.driver import DriverError
from agent.deployments.process_files import MARKER, STATUS, Program, Record, holder
from tests.support.waiting import wait_for

ID: Final = "5f0c2ab1d7e94c3f8a6b1e2d3c4f5a69"


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[Path]:
    """An instance that was set up; whatever runs of it is ended."""
    path = tmp_path / "shop" / "web" / "a"
    path.mkdir(parents=True)
    program = Program(["/bin/sleep", "600"], {MARKER: ID}, "/", False, 1.0, {}, "", [], [], [], [])
    Record(ID, "sha256:d", {}, program, []).write(path)
    yield path
    instances.stop(path, 5.0)


@pytest.fixture
def late(slot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The keeper of an agent that is gone, before it does anything: its Python begins when somebody opens a gate."""
    gate, slow = tmp_path / "gate", tmp_path / "python"
    os.mkfifo(gate)
    slow.write_text(f'#!/bin/sh\nread -r word < "{gate}"\nexec "{sys.executable}" "$@"\n')
    slow.chmod(0o700)
    begun: list[int] = []
    spawn: Callable[..., int] = os.posix_spawn

    def noted(*words: Any, **more: Any) -> int:
        begun.append(spawn(*words, **more))
        return begun[-1]

    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(slow))
        patch.setattr(os, "posix_spawn", noted)
        patch.setattr(instances, "_line", lambda _: "")  # the agent heard nothing of it any more
        with pytest.raises(DriverError):
            instances.start(slot, Record.read(slot))
    (pid,) = begun
    yield pid
    if _status(pid) is None:
        os.kill(pid, signal.SIGKILL)  # ours, and not waited for: it cannot be another's
        os.waitpid(pid, 0)


_ENDED: Final[dict[int, int]] = {}


def _status(pid: int) -> int | None:
    """Return how a child of ours ended, None where it has not."""
    if pid not in _ENDED:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            return None
        _ENDED[pid] = status
    return _ENDED[pid]


def _is_killed(pid: int) -> bool:
    status = _status(pid)
    return status is not None and os.WIFSIGNALED(status)


def test_it_is_ended_before_another_is_started(slot: Path, late: int) -> None:
    """The next agent's keeper is the only one of its instance: none waits to take its place."""
    assert holder(slot) == 0
    keeper = instances.start(slot, Record.read(slot))
    assert holder(slot) == keeper
    wait_for(lambda: _is_killed(late), what="the end of the former one")
    instances.stop(slot, 5.0)
    os.waitpid(keeper, 0)


def test_what_is_stopped_does_not_begin_afterwards(slot: Path, late: int) -> None:
    """Once an instance is stopped, a keeper that nobody saw does not start its program."""
    instances.stop(slot, 5.0)
    wait_for(lambda: _is_killed(late), what="the end of the former one")
    assert holder(slot) == 0
    assert not (slot / STATUS).exists()
