"""One process at a time on a data directory: an advisory lock (flock(2)) that the kernel drops with the process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from reconciler.errors import Broken

LOCK_FILE: Final = "lock"


class DataDirectoryLock:
    """Hold ``<directory>/lock`` from ``acquire`` to ``release``, or as a context manager.

    The file holds the process id of its holder, for people. It is never removed:
    a lock on a removed file guards nothing.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_FILE
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock without waiting; make the directory (0700) where it is missing.

        Raises Broken when another process holds it, or when the directory cannot be written.
        """
        if self._descriptor is not None:
            return
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise Broken(
                    f"The data directory {self._path.parent} is in use by {holder}.",
                    hint="Stop that process, or give this one a directory of its own with --data.",
                ) from None
            raise Broken(
                f"The data directory {self._path.parent} cannot be locked: {error.strerror}.",
                hint="Put it on a local file system.",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock up; nothing happens when it is not held."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise Broken(
                f"The data directory {self._path.parent} cannot be used: {error.strerror}.",
                hint="It must be a directory that this user may write to.",
            ) from error

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def _holder(descriptor: int) -> str:
    text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    return f"process {text}" if text.isdigit() else "another process"
