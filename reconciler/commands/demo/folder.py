"""Where everything of a demo lies. Made anew at each start, and only where a demo made it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reconciler.commands.demo.leftovers import end_leftovers
from reconciler.errors import Broken

MARKER: Final = ".cloudlunacy-demo"
_TEXT: Final = (
    "This directory belongs to `cloudlunacy demo`, which empties it at each start (--keep goes on with it).\n"
)


@dataclass(frozen=True, slots=True)
class Folder:
    """The places in it. Make it with :func:`open_folder`."""

    root: Path

    @property
    def remote(self) -> Path:
        return self.root / "remote.git"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def data(self) -> Path:
        """The control plane's ``--data``."""
        return self.root / "data"

    @property
    def ca(self) -> Path:
        """The roots of the control plane's authority, once it has started."""
        return self.data / "ca.pem"

    @property
    def static(self) -> Path:
        return self.root / "traefik" / "traefik.yml"

    @property
    def dynamic(self) -> Path:
        return self.root / "traefik" / "dynamic" / "cloudlunacy.yml"

    @property
    def memory(self) -> Path:
        """What ``--keep`` needs to know: ports and passwords; mode 0600."""
        return self.root / "demo.json"

    @property
    def webhook_secret(self) -> Path:
        return self.root / "webhook-secret"

    @property
    def apps(self) -> Path:
        """The program of the apps, for agents to run."""
        return self.root / "apps"

    def agent(self, name: str) -> Path:
        return self.root / "agents" / name

    def log(self, name: str) -> Path:
        return self.root / "log" / f"{name}.log"


@contextlib.contextmanager
def open_folder(root: Path, *, keep: bool) -> Iterator[Folder]:
    """Hold the folder for this demo alone; empty, unless ``keep``.

    Raises:
        Broken: when it holds something that no demo made, another demo uses it, or it cannot be written.
    """
    root = root.absolute()
    try:
        _refuse_foreign(root)
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        marker = os.open(root / MARKER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(root, error) from None
    try:
        _lock(marker, root)
        try:
            end_leftovers(root)
            if not keep:
                _empty(root)
            for place in (root / "log", root / "agents", root / "traefik" / "dynamic"):
                place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(root, error) from None
        yield Folder(root)
    finally:
        os.close(marker)


def shown(path: Path, start: Path | None = None) -> str:
    """Return the path as seen from ``start``, the current directory without it, where that is shorter."""
    relative = os.path.relpath(path, start)
    return relative if len(relative) < len(str(path)) else str(path)


def write_secret(path: Path, text: str) -> None:
    """Write a new file that only its owner can read."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _refuse_foreign(root: Path) -> None:
    if root.is_symlink() or (root.exists() and not root.is_dir()):
        raise Broken(f"{root} is no directory.", hint="Name another one with --dir.")
    if root.exists() and not (root / MARKER).is_file() and any(root.iterdir()):
        raise Broken(
            f"{root} holds files that no demo made, and a demo empties its directory.",
            hint="Name a new directory with --dir.",
        )


def _lock(marker: int, root: Path) -> None:
    """The lock goes with the process, however that ends."""
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.pread(marker, 4096, 0).decode("ascii", "replace").splitlines()[-1:]
        who = f" (process {owner[0]})" if owner and owner[0].isdigit() else ""
        raise Broken(
            f"another demo{who} runs in {root}.", hint="End it with Ctrl-C, or name another directory with --dir."
        ) from None
    os.ftruncate(marker, 0)
    os.pwrite(marker, f"{_TEXT}{os.getpid()}\n".encode(), 0)


def _empty(root: Path) -> None:
    for entry in root.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()


def _unusable(root: Path, error: OSError) -> Broken:
    what = error.filename or root
    return Broken(f"{what} cannot be used: {error.strerror or error}.", hint="Name another directory with --dir.")
