"""What this machine has to confine programs with, found by trying it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from agent.deployments.process_confinement import FIRST_USER, PATH, SYSTEM, Means
from agent.deployments.process_entry import Entry, launched

_SECONDS: Final = 10.0
_CONTROLLERS: Final = frozenset({"cpu", "memory", "pids"})
_COUNTS_ANEW: Final = (5, 14)
_FORBIDS: Final = {
    "kernel/apparmor_restrict_unprivileged_userns": "1",
    "kernel/unprivileged_userns_clone": "0",
    "user/max_user_namespaces": "0",
}


class Found:
    """``means``, and ``lacking``: why a program would not be confined; empty where it would be."""

    def __init__(self, means: Means, lacking: str) -> None:
        self.means = means
        self.lacking = lacking


def look() -> Found:
    """Try. Takes some hundredths of a second; blocks."""
    root = os.geteuid() == 0
    links = {path: str(Path(path).readlink()) for path in SYSTEM if Path(path).is_symlink()}
    bwrap = shutil.which("bwrap", path=PATH) or ""
    lacking = _lacking(bwrap, root=root)
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2] if part.isdigit())
    means = Means("" if lacking else bwrap, root, _cgroup(), links, release >= _COUNTS_ANEW)
    return Found(means, lacking)


def _lacking(bwrap: str, *, root: bool) -> str:
    if not bwrap:
        return "bubblewrap is not installed (on Debian and Ubuntu: apt-get install bubblewrap)"
    words = [bwrap, "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    words += ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    try:
        finished = subprocess.run(
            launched(Entry(FIRST_USER, FIRST_USER, [], []), words) if root else words,
            capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS, check=False, env={"PATH": PATH},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not run: {type(error).__name__}"
    if finished.returncode == 0:
        return ""
    said = finished.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it says nothing"]
    return f"bubblewrap may not make namespaces here: {said[0]}{_forbidden()}"


def _forbidden() -> str:
    """Return which setting of the machine forbids user namespaces to users, where one does."""
    for name, value in _FORBIDS.items():
        with contextlib.suppress(OSError):
            if Path("/proc/sys", name).read_text().strip() == value:
                setting = name.replace("/", ".")
                return f" (users may not make user namespaces on this server: {setting} is {value})"
    return ""


def _cgroup() -> str:
    """Return a directory of cgroup v2 in which groups can be limited, made ready; empty without.

    Only what was handed to this agent is used: its unit says ``Delegate=yes`` and ``DelegateSubgroup=agent``
    (systemd 254), so that the agent and the keepers stand beside the groups of programs, and not where these are made.
    """
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        path = next(line.partition("::")[2] for line in lines if line.startswith("0::"))
        own = Path("/sys/fs/cgroup" + path)
        parent = own.parent
        if own.name != "agent" or os.getxattr(parent, "user.delegate") != b"1":
            return ""
        if not set((parent / "cgroup.controllers").read_text().split()) >= _CONTROLLERS:
            return ""
        (parent / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in sorted(_CONTROLLERS)))
        return str(parent)
    return ""
