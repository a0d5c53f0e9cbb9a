"""One instance on disk and in the table of processes: made, started, ended, removed. All of it blocks.

Each of these finds its way from whatever one that was cut off before left behind. No signal goes to a process that is
not known to be the instance's: its keeper is who holds its lock; what a killed keeper left carries its mark, and so
does a keeper that has not come to its lock yet, whose agent may be there no more.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import agent
from agent.deployments.driver import DriverError
from agent.deployments.observed import Instance, State
from agent.deployments.process_files import (
    KEPT,
    MARKER,
    STATUS,
    TMP,
    VOLUMES,
    Record,
    Status,
    holder,
)
from agent.deployments.process_keeper import BUSY, CANNOT, STARTED
from agent.deployments.process_log import tail
from agent.deployments.process_table import carries, marked, send
from agent.deployments.workload import SLOTS, Key, Slot

_KEEPER: Final = (
    "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; "
    "from agent.deployments.process_keeper import main; main(Path(sys.argv[1]))"
)
_ROOT: Final = str(Path(agent.__file__).parents[1])
_START_SECONDS: Final = 30.0
_KILL_SECONDS: Final = 10.0
LONGER: Final = 5.0
"""Seconds that a keeper may take beyond the grace of its program."""
_TAIL_LINES: Final = 5
_TAIL_CHARACTERS: Final = 600
_LEFT: Final = ".gone-"
_KILLED: Final = 128 + signal.SIGKILL
Owner = tuple[int, int] | None
"""User and group; None for the agent's own."""


def directories(root: Path) -> Iterator[tuple[Key, Path]]:
    """Yield what there is of each deployment."""
    with contextlib.suppress(OSError):
        for team in sorted(root.iterdir()):
            if team.is_dir():
                for path in sorted(team.iterdir()):
                    if path.is_dir():
                        yield Key(team.name, path.name), path


def has_volumes(directory: Path) -> bool:
    return (directory / VOLUMES).is_dir()


def read(key: Key, directory: Path) -> Iterator[Instance]:
    """Yield the instances of a deployment."""
    for slot in SLOTS:
        path = directory / slot
        if path.is_dir():
            yield _read(key, slot, path)


def _read(key: Key, slot: Slot, path: Path) -> Instance:
    keeper = holder(path)
    status = Status.read(path)
    try:
        record = Record.read(path)
    except (OSError, ValueError):
        # nobody can say what it is made of, so it is not what is wanted, and goes
        return Instance(id=f"{key}/{slot}", key=key, digest="", slot=slot, state="running" if keeper else "exited")
    state: State = "created"
    if keeper:
        state = "restarting" if status is not None and status.state == "restarting" else "running"
    elif status is not None:
        state = "exited"
    cut = state == "exited" and status is not None and status.state != "exited"  # its keeper, or the machine, ended
    code = None if state != "exited" or status is None else _KILLED if cut else status.exit_code
    return Instance(
        id=record.id,
        key=key,
        digest=record.digest,
        slot=slot,
        state=state,
        kept=(path / KEPT).exists(),
        exit_code=code,
        killed=cut or (code is not None and status is not None and status.killed),
        ran_seconds=status.ran if status is not None and code is not None else None,
        started=status.started if status is not None else "",
        restarts=status.restarts if status is not None else 0,
        ports=record.ports,
        address="127.0.0.1" if keeper else "",
        on_host=True,
        last_lines=" | ".join(tail(path, _TAIL_LINES))[-_TAIL_CHARACTERS:] if code else "",
    )


def make(path: Path, record: Record, volumes: list[str], owner: Owner) -> None:
    """Set an instance up; ``owner`` are user and group of its programs. Raises OSError."""
    for name in volumes:
        volume = path.parent / VOLUMES / name
        if not volume.is_dir():
            volume.mkdir(parents=True, mode=0o700, exist_ok=True)
            _give(volume, owner)
    clear(path.parent)
    if path.exists():
        return
    new = path.with_name(f".new-{secrets.token_hex(8)}")
    new.mkdir(mode=0o700)
    record.write(new)
    new.rename(path)


def clear(directory: Path) -> None:
    """Remove what whoever was cut off left half made or half removed of a deployment. Raises OSError."""
    for left in directory.glob(".*"):
        discard(left)


def start(path: Path, record: Record) -> int:
    """Start the keeper, which starts the program; return its process id, 0 where one is there. Raises DriverError."""
    if holder(path):
        return 0
    end_leftovers(record.id)
    for port in sorted(set(record.ports.values())):
        _require_free(port)
    discard(path / TMP)
    (path / TMP).mkdir()
    (path / TMP).chmod(0o1777)  # as everywhere; nobody else can reach it
    (path / STATUS).unlink(missing_ok=True)
    answer, answers = os.pipe2(os.O_CLOEXEC)
    try:
        keeper = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", _KEEPER, str(path), _ROOT],
            {"PATH": os.defpath, MARKER: record.id},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, answers, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setsid=True,
            setsigmask=[],
        )
    finally:
        os.close(answers)
    try:
        _understand(_line(answer))
    finally:
        os.close(answer)
    return keeper


def _line(answer: int) -> str:
    found, deadline = b"", time.monotonic() + _START_SECONDS
    while not found.endswith(b"\n") and (left := deadline - time.monotonic()) > 0:
        if select.select([answer], [], [], left)[0]:
            piece = os.read(answer, 4096)
            if not piece:
                break
            found += piece
    return found.decode("utf-8", "replace").strip()


def _understand(line: str) -> None:
    """Raises DriverError."""
    if line == STARTED:
        return
    if line.startswith(CANNOT):
        raise DriverError("CannotStart", f"The program cannot be started: {line.removeprefix(CANNOT)}.")
    if line == BUSY:
        raise DriverError("KeeperBusy", "Its former keeper has not ended yet.", retryable=True)
    raise DriverError("KeeperFailed", "The keeper of the program does not start.", retryable=True)


def _require_free(port: int) -> None:
    """Raises DriverError where somebody listens at a port. One that only root may have is left to the program."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                text = f"Port {port} is in use by another program on this machine."
                raise DriverError("PortTaken", text, retryable=True) from None


def stop(path: Path, patience: float) -> None:
    """Ask its keeper to end everything, and kill it where that takes longer. Raises DriverError where it stays."""
    instance = _id(path)
    if keeper := holder(path):
        deadline = time.monotonic() + patience
        _signal_keeper(path, keeper, signal.SIGTERM)
        if not _until(lambda: not holder(path), deadline):
            _signal_keeper(path, keeper, signal.SIGKILL)
            _until(lambda: not holder(path), time.monotonic() + _KILL_SECONDS)
    if instance:
        end_leftovers(instance)
    if holder(path):
        raise DriverError("StillRunning", "It cannot be ended; the machine's log may say why.", retryable=True)


def _signal_keeper(path: Path, keeper: int, number: int) -> None:
    send(keeper, number, still=lambda: holder(path) == keeper)


def end_leftovers(instance: str) -> None:
    """Kill what a keeper that was killed could not end any more, and a keeper that comes too late to its lock."""
    deadline = time.monotonic() + _KILL_SECONDS
    while (found := marked(instance)) and time.monotonic() < deadline:
        for pid in found:
            send(pid, signal.SIGKILL, still=lambda pid=pid: carries(pid, instance))  # type: ignore[misc]
        time.sleep(0.01)


def remove(path: Path, patience: float) -> None:
    """End it, and remove all but its volumes. Raises OSError, DriverError."""
    if path.exists():
        stop(path, patience)
        discard(path)
    leave(path.parent)


def leave(directory: Path) -> None:
    """Remove the directory of a deployment, if nothing is in it."""
    with contextlib.suppress(OSError):  # what is not empty stays
        directory.rmdir()
        directory.parent.rmdir()


def remove_volumes(directory: Path) -> None:
    """Raises OSError."""
    discard(directory / VOLUMES)
    leave(directory)


def discard(path: Path) -> None:
    """Remove a directory; it is gone at once, its content may take a while. Raises OSError."""
    if not path.exists():
        return
    aside = path
    if not path.name.startswith(_LEFT):
        aside = path.with_name(f"{_LEFT}{secrets.token_hex(8)}")
        path.rename(aside)
    if aside.is_dir():
        shutil.rmtree(aside, onerror=_despite_its_mode)
    else:
        aside.unlink()


def _despite_its_mode(function: Callable[..., Any], name: str, _: object) -> None:
    """Remove what its program closed even to its own user."""
    for path in (Path(name).parent, Path(name)):
        if not path.is_symlink():
            path.chmod(0o700)
    if function in (os.open, os.scandir, os.lstat, os.rmdir):
        shutil.rmtree(name)
    else:
        Path(name).unlink()


def _give(path: Path, owner: Owner) -> None:
    if owner is not None:
        os.chown(path, *owner)


def _id(path: Path) -> str:
    try:
        return Record.read(path).id
    except (OSError, ValueError):
        return ""


def _until(condition: Callable[[], bool], deadline: float) -> bool:
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
