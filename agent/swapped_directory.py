"""Files that belong together and are replaced together, whenever the agent is killed.

``<link>`` is a symbolic link to ``<link>.<n>``, a directory that is complete, and on the disk, before the link is
replaced in one step, and that is never written to again. Whoever resolves the link once and reads from there has files
of one time. The former directory stays until the next replacement, for whoever is reading it.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from agent.keys import sync_directory

_HIGHEST: Final = 10**18 - 1
_TRIES: Final = 1000
"""Numbers of a new directory that are tried: somebody else's may have that name."""
_MOST: Final = 256 * 1024
"""Bytes of one file; what is longer is not ours."""


class SwappedDirectory:
    """All methods block; those that write raise OSError and then have changed nothing.

    ``gid``: a group that may read; without it only the agent's user may. ``foreign``: says of a directory that has the
    name of one of ours whether it is somebody else's; such a one is left alone.
    """

    def __init__(
        self, link: Path, *, gid: int | None = None, foreign: Callable[[Path], bool] = lambda _: False
    ) -> None:
        self.link = link
        self._gid = gid
        self._foreign = foreign
        name = re.escape(link.name)
        self._numbered = re.compile(rf"{name}\.([0-9]{{1,18}})")
        self._left_over = re.compile(rf"\.{name}\.[0-9a-f]{{16}}")

    def present(self) -> Path:
        """Return the directory that the link leads to. Raises OSError."""
        return self.link.resolve(strict=True)

    def put(self, contents: Mapping[str, bytes]) -> Path:
        """Make these the files, by name; return their directory."""
        with self._turn():
            if self.link.exists() and not self.link.is_symlink():
                raise FileExistsError(17, "Something else lies there", str(self.link))
            former = self._name_of_present()
            directory = self._new()
            try:
                for name, content in contents.items():
                    self._write(directory / name, content)
                sync_directory(directory)
                self._point_to(directory)
            except OSError:
                shutil.rmtree(directory, ignore_errors=True)
                raise
            self._tidy(directory.name, former)
        return directory

    def remove(self) -> None:
        """Take the link and everything behind it away."""
        if not self.link.parent.is_dir():
            return
        with self._turn():
            if self.link.is_symlink():
                self.link.unlink()
                sync_directory(self.link.parent)
            self._tidy()
        (self.link.parent / self._lock_name).unlink(missing_ok=True)

    def drop_former(self) -> None:
        """Remove all but what the link leads to, also from those who are reading it."""
        if not self.link.parent.is_dir():
            return
        with self._turn():
            self._tidy(self._name_of_present())

    @property
    def _lock_name(self) -> str:
        return f".{self.link.name}.lock"

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Keep another process of this agent out: enrolling again while it runs."""
        path = self.link.parent / self._lock_name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _new(self) -> Path:
        first = max((number for number, _ in self._directories()), default=0) + 1
        if first > _HIGHEST:
            first = 1
        for number in range(first, first + _TRIES):
            directory = self.link.with_name(f"{self.link.name}.{number}")
            try:
                directory.mkdir(mode=0o700)
            except FileExistsError:
                continue
            break
        else:
            raise FileExistsError(17, "Others have all names for it", str(self.link))
        if self._gid is not None:
            os.chown(directory, -1, self._gid)
            directory.chmod(0o750)
        return directory

    def _write(self, path: Path, content: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if self._gid is not None:
                os.fchown(descriptor, -1, self._gid)
                os.fchmod(descriptor, 0o640)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def _point_to(self, directory: Path) -> None:
        aside = self.link.with_name(f".{self.link.name}.{secrets.token_hex(8)}")
        aside.symlink_to(directory.name)
        aside.replace(self.link)
        sync_directory(self.link.parent)

    def _name_of_present(self) -> str:
        return self.link.readlink().name if self.link.is_symlink() else ""

    def _tidy(self, *stay: str) -> None:
        """Remove what a crash left, and all directories but these: somebody may be reading them."""
        for _, path in self._directories():
            if path.name not in stay and not self._foreign(path):
                shutil.rmtree(path, ignore_errors=True)
        self._sweep()

    def _sweep(self) -> None:
        for path in self.link.parent.iterdir():
            if self._left_over.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def _directories(self) -> list[tuple[int, Path]]:
        matched = ((self._numbered.fullmatch(path.name), path) for path in self.link.parent.iterdir())
        found = [(int(match[1]), path) for match, path in matched if match is not None]
        return [(number, path) for number, path in found if path.is_dir() and not path.is_symlink()]


def read(path: Path) -> bytes:
    """Read one file of such a directory, as far as it can be ours. Raises OSError."""
    with path.open("rb") as file:
        return file.read(_MOST)
