"""A machine that is made an agent: a directory in the place of ``/``, with a stand-in for systemctl that really starts.

The stand-in keeps what is enabled and what runs in files, starts what the unit in the directory names, and writes down
each call. The program lies in ``/opt`` of that directory as install.sh would put it there, as a few lines that start
the one under test, so that no test waits for pip.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.fleet import Installation
from tests.support.waiting import wait_for

SYSTEMCTL = """#!{python}
import os, pathlib, shlex, signal, subprocess, sys
root, state = pathlib.Path({root!r}), pathlib.Path({state!r})
words = [word for word in sys.argv[1:] if not word.startswith("-")]
with (state / "calls").open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
unit = root / "etc/systemd/system/cloudlunacy-agent.service"
pid = state / "pid"

def running():
    try:
        return pathlib.Path("/proc/" + pid.read_text() + "/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

def stop():
    if running():
        os.kill(int(pid.read_text()), signal.SIGTERM)
        while running():
            pass

match words[0]:
    case "is-enabled":
        sys.exit(not (state / "enabled").exists())
    case "is-active":
        sys.exit(0 if running() else 3)
    case "enable":
        assert unit.exists()
        (state / "enabled").touch()
    case "disable":
        (state / "enabled").unlink(missing_ok=True)
    case "stop":
        stop()
    case "restart":
        stop()
        line = next(one for one in unit.read_text().splitlines() if one.startswith("ExecStart="))
        words = [str(root) + word if word.startswith("/") else word for word in shlex.split(line[10:])]
        with (state / "log").open("ab") as log:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        pid.write_text(str(process.pid))
    case "show":
        print("ActiveState=" + ("active" if running() else "failed"))
"""
PROGRAM = """#!/bin/sh
[ "$1" = --version ] && {{ echo {version}; exit; }}
exec {python} {path} "$@"
"""
MAIN = """import importlib.metadata, sys
if {version!r}:
    real = importlib.metadata.version
    importlib.metadata.version = lambda name: {version!r} if name == "cloudlunacy" else real(name)
{more}
from reconciler.__main__ import main
sys.exit(main())
"""


@dataclass
class Prepared:
    """``folder/root`` is the machine, ``folder/state`` what its systemctl remembers."""

    folder: Path
    plane: Installation

    def __post_init__(self) -> None:
        self.root, self.state = self.folder / "root", self.folder / "state"
        for directory in (self.root / "etc/systemd", self.state, self.folder / "bin"):
            directory.mkdir(parents=True)
        text = SYSTEMCTL.format(python=sys.executable, root=str(self.root), state=str(self.state))
        executable(self.folder / "bin/systemctl", text)

    @property
    def data(self) -> Path:
        return self.root / "var/lib/cloudlunacy-agent"

    @property
    def opt(self) -> Path:
        return self.root / "opt/cloudlunacy"

    def release(self, name: str, version: str, more: str = "") -> None:
        """Put a release there, as if pip had made it; ``more`` is done before the program starts."""
        place = self.opt / "versions" / name / "bin"
        place.mkdir(parents=True)
        (place / "main.py").write_text(MAIN.format(version=version, more=more))
        executable(
            place / "cloudlunacy", PROGRAM.format(version=version, python=sys.executable, path=place / "main.py")
        )

    def run(
        self, words: Sequence[str | Path], *, stdin: str = "", more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on that machine."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        environment = {
            **os.environ,
            "PATH": path,
            "PYTHONPATH": str(Path.cwd()),
            "HOME": str(self.folder),
            **(more or {}),
        }
        return subprocess.run(
            list(map(str, words)),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=environment,
        )

    def cloudlunacy(self, *words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run the program that is current there."""
        return self.run([self.opt / "current/bin/cloudlunacy", *words], stdin=stdin)

    def calls(self) -> list[str]:
        """What systemctl was asked so far."""
        path = self.state / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def pid(self) -> int:
        return int((self.state / "pid").read_text())

    def log(self) -> str:
        path = self.state / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """End what was started."""
        if (self.state / "pid").exists():
            try:
                os.killpg(self.pid(), signal.SIGKILL)
            except ProcessLookupError:
                return
            wait_for(lambda: not Path(f"/proc/{self.pid()}").exists(), 10, what="the agent has ended")


def executable(path: Path, text: str) -> None:
    """Write a program."""
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
