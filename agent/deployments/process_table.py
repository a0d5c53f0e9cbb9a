"""The processes of this machine, as ``/proc`` shows them (proc(5)), and signals that never reach another one.

A process id alone is nobody's name: it is given to somebody else once its process has ended. Signals go through a
descriptor of the process (pidfd_open(2)), and what is known of it is looked at again once that is open: either it is
still the same one, or the signal reaches nobody. Standard library only; the keeper imports this.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from agent.deployments.process_files import MARKER

_PROC: Final = Path("/proc")


class Entry(NamedTuple):
    pid: int
    state: str
    """One letter; ``Z`` has ended and waits for its parent."""
    parent: int
    group: int
    start: int
    """Ticks since boot."""


def entry(pid: int) -> Entry | None:
    """Return what there is at a process id."""
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()  # the name before it may contain anything
    return Entry(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[19]))


def entries() -> Iterator[Entry]:
    for path in _PROC.iterdir():
        if path.name.isdigit() and (found := entry(int(path.name))) is not None:
            yield found


def send(pid: int, number: int, *, still: Callable[[], bool]) -> bool:
    """Send a signal to the process, if after it was pinned down ``still`` says that it is the one that is meant."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not still():
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def signal_group(leader: int, number: int) -> None:
    """Send a signal to every process of a group."""

    def belongs(pid: int) -> bool:
        found = entry(pid)
        return found is not None and found.group == leader

    for one in entries():
        if one.group == leader and one.state != "Z":
            send(one.pid, number, still=lambda pid=one.pid: belongs(pid))  # type: ignore[misc]


def has_followers(leader: int) -> bool:
    """Say whether somebody besides its leader is in a group."""
    return any(one.group == leader and one.pid != leader for one in entries())


def children(parent: int) -> list[int]:
    return [one.pid for one in entries() if one.parent == parent]


def marked(instance: str) -> list[int]:
    """Return the processes that carry the mark of an instance, whoever their parent is by now."""
    return [one.pid for one in entries() if one.state != "Z" and carries(one.pid, instance)]


def carries(pid: int, instance: str) -> bool:
    mark = f"{MARKER}={instance}".encode()
    with contextlib.suppress(OSError):
        return mark in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    return False
