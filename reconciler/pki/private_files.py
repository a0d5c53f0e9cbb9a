"""Files that only their owner may read: made, replaced and locked so that a crash or a second process does no harm.

Errors of the system leave as ``OSError``; whoever calls knows what the file was for and says so.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from reconciler.errors import Broken

MAX_SIZE: Final = 64 * 1024
"""Bytes. The largest of our files has about 20 KiB; whatever is larger is none of them."""


def told(path: Path, error: OSError) -> str:
    """Name a file that should hold a secret. Where there is none, the name may be the secret, and is not repeated."""
    missing = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
    return "the file that should hold it" if missing else str(path)


def make_private_directory(path: Path) -> None:
    """Make a directory of mode 0700, or accept the one that is there.

    Raises:
        Broken: when it is open to other users.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    refuse_if_open_to_others(path)


def write_private(path: Path, content: bytes) -> None:
    """Replace ``path`` by a file of mode 0600, durably and in one step."""
    aside = _write_aside(path, content)
    try:
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def create_private(path: Path, content: bytes) -> bool:
    """Make ``path`` unless it is there; False: another process was faster, and its file is the file."""
    aside = _write_aside(path, content)
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    finally:
        aside.unlink()
    sync_directory(path.parent)
    return True


def write_new(path: Path, content: bytes) -> None:
    """Make a file of mode 0600, durably, on whatever file system. ``FileExistsError``: it is there, and stays."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def remove_private(path: Path) -> None:
    """Remove a file, durably, or find that it is not there."""
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def read_private(path: Path) -> bytes:
    """Read a file that must be for its owner only.

    Raises:
        Broken: when it is open to other users or too large to be ours.
    """
    refuse_if_open_to_others(path)
    with path.open("rb") as file:
        content = file.read(MAX_SIZE + 1)
    if len(content) > MAX_SIZE:
        raise Broken(f"{path} is larger than {MAX_SIZE} bytes, so it is none of ours.", hint="Restore it.")
    return content


def refuse_if_open_to_others(path: Path) -> None:
    """Raise Broken, with what to run, when group or others have any right to ``path``."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        wanted = "700" if path.is_dir() else "600"
        raise Broken(
            f"{path} is open to other users (mode {mode:04o}), so the keys may be known to others.",
            hint=f"Run chmod {wanted} {path}, and rotate the keys if anybody else used this machine.",
        )


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Keep other threads and processes out (flock(2)) until the block ends, or its process, in whatever way."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_aside(path: Path, content: bytes) -> Path:
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_new(aside, content)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    return aside
