"""How an agent that is root lets a program in: it becomes the program's user before anything of the tenant counts.

Root alone reaches the directories of a deployment, so it shows them at :data:`STAGE`, in a mount namespace that nobody
else has, and then gives everything up for good: groups, user, capabilities, and the way to new privileges. Only after
that bubblewrap is executed, as that user, in user namespaces. So no program with any privilege ever runs among files,
or in an environment, that a tenant shapes, and there is nothing to win with what lies where (ADR 47).

Standard library only, for the keeper imports this. It begins with one thread.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Final, NamedTuple

STAGE: Final = "/tmp"  # noqa: S108  exists everywhere, and is covered in a namespace of its own
_LAUNCHER: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from agent.deployments.process_entry import main; main(sys.argv[2], sys.argv[3:])"
)
_ROOT: Final = str(Path(__file__).parents[2])
_CLONE_NEWNS: Final = 0x20000
_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_BIND: Final = 4096
_MS_REC: Final = 16384
_MS_SLAVE: Final = 1 << 19
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITIES: Final = ("CapPrm:", "CapEff:", "CapAmb:")


class Entry(NamedTuple):
    user: int
    group: int
    sources: list[str]
    """What is shown at ``STAGE/0``, ``STAGE/1`` and so on; what is not there is left out."""
    hidden: list[str]
    """Directories that are empty wherever a source holds them."""


def enter(entry: Entry) -> None:
    """Show the sources and become the user. Raises OSError; then nothing may be executed."""
    if 0 in (entry.user, entry.group):
        raise PermissionError(1, "programs do not run as root")
    libc = ctypes.CDLL(None, use_errno=True)
    _show(libc, entry)
    os.chdir("/")
    leave_root(entry)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or not _is_nobody(entry):
        raise PermissionError(1, "privileges could not be given up")
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # another user is not told any more, so anew


def leave_root(entry: Entry) -> None:
    """Take the user and the group, and no other group, for good. Raises OSError."""
    os.setgroups([])
    os.setresgid(entry.group, entry.group, entry.group)
    os.setresuid(entry.user, entry.user, entry.user)


def _is_nobody(entry: Entry) -> bool:
    """Say whether nothing is left of root."""
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    left = [int(words[1], 16) for words in lines if words and words[0] in _CAPABILITIES]
    ids = (os.getresuid(), os.getresgid(), os.getgroups())
    return not any(left) and ids == ((entry.user,) * 3, (entry.group,) * 3, [])


def _show(libc: ctypes.CDLL, entry: Entry) -> None:
    def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
        words = [None if word is None else os.fsencode(word) for word in (source, target, kind, options)]
        if libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]):
            number = ctypes.get_errno()
            raise OSError(number, f"{os.strerror(number)} (mount of {target})")

    if libc.unshare(_CLONE_NEWNS):
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} (a mount namespace)")
    mount("none", "/", None, _MS_REC | _MS_SLAVE)
    hidden = [os.path.realpath(path) for path in entry.hidden]
    opened = [_opened(path) for path in entry.sources]  # before the stage covers what lies below it
    mount("tmpfs", STAGE, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
    for number, descriptor in enumerate(opened):
        if descriptor < 0:
            continue
        target = f"{STAGE}/{number}"
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.mkdir(target, 0o755)  # noqa: PTH102  as little as possible is imported
        else:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        place = f"/proc/self/fd/{descriptor}"
        shown = os.readlink(place)  # noqa: PTH115  no path
        mount(place, target, None, _MS_BIND | _MS_REC)
        for path in hidden:
            within = f"{target}/{os.path.relpath(path, shown)}"
            if os.path.commonpath((path, shown)) == shown and os.path.isdir(within):  # noqa: PTH112
                mount("tmpfs", within, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_RDONLY, "mode=0555,size=4k")
        os.close(descriptor)


def _opened(path: str) -> int:
    """Return a descriptor of what lies at a path, -1 where nothing does. Raises OSError."""
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return -1


def launched(entry: Entry, argv: list[str]) -> list[str]:
    """Return a command that enters and becomes ``argv``: for whoever has threads, and cannot enter after a fork."""
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, _ROOT, json.dumps(entry._asdict()), *argv]


def main(entry: str, argv: list[str]) -> None:
    os.umask(0o022)
    parent = os.getppid()
    try:
        enter(Entry(**json.loads(entry)))
        if os.getppid() != parent:
            os._exit(1)
        os.execv(argv[0], argv)  # noqa: S606  no shell is wanted
    except OSError as error:
        os.write(2, f"{error.strerror}\n".encode())
    os._exit(127)
