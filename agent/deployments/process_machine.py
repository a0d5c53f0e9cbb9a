"""What this machine has to confine programs with, found by trying it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from agent.deployments.process_confinement import PATH, SYSTEM, Means

_SECONDS: Final = 10.0
_CONTROLLERS: Final = frozenset({"cpu", "memory", "pids"})
_COUNTS_ANEW: Final = (5, 14)


class Found:
    """``means``, and ``lacking``: why a program would not be confined; empty where it would be."""

    def __init__(self, means: Means, lacking: str) -> None:
        self.means = means
        self.lacking = lacking


def look() -> Found:
    """Try. Takes some hundredths of a second; blocks."""
    root = os.geteuid() == 0
    links = {path: str(Path(path).readlink()) for path in SYSTEM if Path(path).is_symlink()}
    bwrap, setpriv = (shutil.which(name, path=PATH) or "" for name in ("bwrap", "setpriv"))
    lacking = _lacking(bwrap, setpriv, root=root)
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2] if part.isdigit())
    means = Means("" if lacking else bwrap, setpriv, root, _cgroup(), links, release >= _COUNTS_ANEW)
    return Found(means, lacking)


def _lacking(bwrap: str, setpriv: str, *, root: bool) -> str:
    if not bwrap:
        return "bubblewrap is not installed (on Debian and Ubuntu: apt-get install bubblewrap)"
    if root and not setpriv:
        return "setpriv is not installed (package util-linux)"
    words = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", *([] if root else ["--unshare-user"])]
    try:
        finished = subprocess.run(
            [bwrap, *words, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"],
            capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS, check=False, env={"PATH": PATH},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not run: {type(error).__name__}"
    if finished.returncode == 0:
        return ""
    said = finished.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it says nothing"]
    return f"bubblewrap may not make namespaces here: {said[0]}"


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
