"""Finds out how a machine stands, and does the steps of :mod:`agent.installing.plan`, each of which may be repeated."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final

from agent import left_behind
from agent.credentials import AgentFile
from agent.installing.layout import USER, Layout
from agent.installing.plan import Cannot, Facts, Step
from agent.installing.systemctl import Systemctl
from agent.keys import Unusable
from agent.presence import connected_since

CONNECT_SECONDS: Final = 90.0
_LOOK_SECONDS: Final = 0.2
ENGINES: Final = ("run/docker.sock", "run/podman/podman.sock")
_PROGRAMS: Final = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")
"""Also where the path of whoever asks does not lead there."""


class Machine:
    """``enrol`` enrols into the data directory; ``remove_deployments`` removes what runs."""

    def __init__(
        self,
        layout: Layout,
        systemctl: Systemctl,
        *,
        unit: str = "",
        as_root: bool = True,
        enrol: Callable[[], None] = lambda: None,
        remove_deployments: Callable[[], None] = lambda: None,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        self._layout = layout
        self._systemctl = systemctl
        self._unit = unit
        self._as_root = as_root
        self._enrol = enrol
        self._remove_deployments = remove_deployments
        self._seconds = connect_seconds
        self._restarted = 0.0

    def facts(self) -> Facts:
        """Return how the machine stands. Raises Cannot or Unusable."""
        layout = self._layout
        unit = _text(layout.unit)
        has_systemd = layout.has_systemd
        return Facts(
            systemd=has_systemd,
            root=os.geteuid() == 0 or layout.root != Path("/"),
            enrolled_as=enrolled_as(layout.data_dir),
            unit=unit,
            enabled=has_systemd and unit is not None and self._systemctl.enabled(),
            active=has_systemd and unit is not None and self._systemctl.active(),
            user=self._owner() is not None,
            data=layout.data_dir.is_dir(),
            program=layout.opt.is_dir(),
        )

    def do(self, step: Step) -> None:
        """Do one step. Raises Cannot, OSError, or what enrolling raises."""
        {
            "add-user": self._add_user,
            "make-data": self._make_data,
            "enrol": self._enrol_and_give,
            "write-unit": lambda: write(self._layout.unit, self._unit),
            "enable": self._systemctl.enable,
            "restart": self.restart,
            "await-connection": self.await_connection,
            "stop": self._systemctl.stop,
            "remove-deployments": self._remove_deployments,
            "remove-unit": self._remove_unit,
            "remove-data": lambda: shutil.rmtree(self._layout.data_dir),
            "remove-user": lambda: self._call("userdel", USER),
            "remove-program": self._remove_program,
        }[step.name]()

    def _make_data(self) -> None:
        self._layout.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._give_data()

    def _enrol_and_give(self) -> None:
        self._enrol()
        self._give_data()

    def _remove_unit(self) -> None:
        self._layout.unit.unlink(missing_ok=True)
        self._systemctl.reload()

    def restart(self) -> None:
        """Start it anew."""
        self._restarted = time.time()
        self._systemctl.restart()

    def await_connection(self, version: str = "", *, at_least: float = 0.0) -> None:
        """Wait until the agent that was started is connected, with this version where one is named. Raises Cannot."""
        seconds = max(self._seconds, at_least)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = connected_since(self._layout.data_dir)
            if found is not None and found[0] >= self._restarted - 1 and version in ("", found[1]):
                return
            time.sleep(_LOOK_SECONDS)
        why = left_behind.read(self._layout.data_dir) or self._systemctl.status()
        raise Cannot(
            f"the agent is not connected after {seconds:.0f} seconds{f' ({why})' if why else ''}. "
            "Its log: journalctl -u cloudlunacy-agent -n 50"
        )

    def _owner(self) -> tuple[int, int] | None:
        """Return user and group id of the system user on that machine."""
        for line in (_text(self._layout.at(PurePosixPath("/etc/passwd"))) or "").splitlines():
            fields = line.split(":")
            if fields[0] == USER and len(fields) > 3:
                return int(fields[2]), int(fields[3])
        return None

    def _give_data(self) -> None:
        """What lies there belongs to whom the agent runs as."""
        owner = None if self._as_root else self._owner()
        if owner is None or os.geteuid() != 0:
            return
        for folder, _, files in os.walk(self._layout.data_dir):
            for name in (".", *files):
                os.chown(Path(folder, name), *owner, follow_symlinks=False)

    def _add_user(self) -> None:
        shell = "/usr/sbin/nologin"
        self._call("useradd", "--system", "--user-group", "--no-create-home", "--shell", shell, USER)

    def _call(self, program: str, *words: str) -> None:
        root = self._layout.root
        prefix = [] if root == Path("/") else ["--root", str(root)]
        try:
            done = subprocess.run([program, *prefix, *words], capture_output=True, text=True, check=False)
        except OSError as error:
            raise Cannot(f"{program} does not work: {error}.") from None
        if done.returncode:
            raise Cannot(f"{program} ended with {done.returncode}: {done.stderr.strip()[:300]}")

    def _remove_program(self) -> None:
        command = self._layout.command
        if command.is_symlink() and "/opt/cloudlunacy/" in f"{command.readlink()}/":
            command.unlink()
        shutil.rmtree(self._layout.opt)


def enrolled_as(data: Path) -> str | None:
    """Return which agent a data directory belongs to, None where it is none's. Raises Unusable where it is damaged."""
    try:
        if not (data / "agent.json").exists():
            return None
        return AgentFile.load(data).name
    except OSError as error:
        raise Unusable(f"{data} cannot be read: {error.strerror}.") from None


def capabilities_of(layout: Layout) -> tuple[str, ...]:
    """Return what a machine can run, as far as that can be seen: an engine's socket, Docker, bubblewrap, mongod.

    Docker counts where it is installed, for it may only be stopped just now; Podman serves nobody without its socket.
    """
    engine = any((layout.root / one).exists() for one in ENGINES) or _has(layout, "dockerd")
    confines = _has(layout, "bwrap")
    mongodb = engine or (confines and _has(layout, "mongod"))
    found = {"container": engine, "process": confines, "mongodb": mongodb}
    return tuple(name for name, there in found.items() if there)


def _has(layout: Layout, program: str) -> bool:
    """Say whether a program is installed on that machine."""
    own = os.get_exec_path() if layout.root == Path("/") else []
    places = [*own, *(str(layout.root / one) for one in _PROGRAMS)]
    return shutil.which(program, path=os.pathsep.join(places)) is not None


def write(path: Path, text: str) -> None:
    """Write a file that others may read, whole or not at all."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text, encoding="utf-8")
    aside.chmod(0o644)
    aside.replace(path)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Cannot(f"{path} cannot be read: {error}.") from None
