"""The commit point: one front's file, replaced in one step.

1. The text goes to a temporary file *outside* the watched directory, because Traefik reloads for any file in it, and
   on the same file system, because only there a rename is atomic.
2. The file is flushed to the disk, renamed onto the front's file, and the directory is flushed too: after a power loss
   there is the old text or the new one.
3. The text before is kept for :meth:`FrontFile.restore`.

Calls block for as long as the disk takes (10 MB: tens of milliseconds); callers in an event loop use a thread.
"""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from reconciler.errors import Broken, CloudLunacyError, Transient

_MODE: Final = 0o640
_PASSING: Final = {
    errno.ENOSPC: ("DiskFull", "the disk is full", "Make room."),
    errno.EDQUOT: ("DiskFull", "the disk quota is used up", "Make room."),
    errno.EIO: ("DiskError", "the disk reports an error", "Look at the machine's log."),
    errno.EMFILE: ("NoFileDescriptors", "no file descriptors are left", "Raise the limit (ulimit -n)."),
    errno.ENFILE: ("NoFileDescriptors", "no file descriptors are left", "Raise the limit (fs.file-max)."),
    errno.ENOENT: ("DirectoryMissing", "the directory is gone", "Create it, or mount it."),
    errno.EROFS: ("ReadOnly", "the file system is read-only", "Mount it for writing."),
}


class _Seen(NamedTuple):
    """What ``stat`` says of the file that we wrote; another file or another write differs in one of these."""

    inode: int
    size: int
    modified: int


class FrontFile:
    """The file that one front's Traefik watches.

    ``staging`` is where the text is written first; by default ``.cloudlunacy-<file name>`` beside the directory.
    """

    def __init__(self, path: Path, *, staging: Path | None = None) -> None:
        self.path = path
        self.staging = staging if staging is not None else path.parent.parent / f".cloudlunacy-{path.name}"
        self.digest = ""
        """SHA-256 (hex) of the text that was published last; empty before the first one."""
        self._seen: _Seen | None = None
        self._text: bytes | None = None
        self._former: bytes | None = None

    def adopt(self) -> str | None:
        """Take the file that lies there as published, after a restart. Returns its text, None where there is none.

        Raises:
            Transient: when the disk does not let it be read.
        """
        try:
            seen = _seen(self.path.stat())
            content = self.path.read_bytes()
            text = content.decode("utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        except OSError as error:
            raise _failure(error, self.path) from None
        self._remember(content, seen, former=None)
        return text

    def publish(self, text: str) -> str:
        """Put ``text`` in place and return its SHA-256 (hex).

        Raises:
            Transient: ``DiskFull``, ``DiskError``, ``ReadOnly``, ``DirectoryMissing``, ``NoFileDescriptors``.
            Broken: when the directories are not writable for us, or not on one file system.
        """
        content = text.encode("utf-8")
        former = self._former if content == self._text else self._text
        self._remember(content, self._replace(content), former=former)
        return self.digest

    def restore(self) -> str | None:
        """Put the text before the last one back in place. Returns its digest; None when there is none, or only itself.

        Raises:
            Transient, Broken: as :meth:`publish`.
        """
        former = self._former
        if former is None:
            return None
        self._remember(former, self._replace(former), former=None)
        return self.digest

    def drifted(self) -> str | None:
        """Say how the file differs from what was published: ``missing``, ``changed``, or None when it does not.

        Reads the file only when its inode, size or time of change is another.
        """
        if self._seen is None:
            return None
        try:
            seen = _seen(self.path.stat())
            if seen == self._seen:
                return None
            content = self.path.read_bytes()
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            raise _failure(error, self.path) from None
        if hashlib.sha256(content).hexdigest() != self.digest:
            return "changed"
        self._seen = seen
        return None

    def _remember(self, content: bytes, seen: _Seen, *, former: bytes | None) -> None:
        self._text, self._former, self._seen = content, former, seen
        self.digest = hashlib.sha256(content).hexdigest()

    def _replace(self, content: bytes) -> _Seen:
        temporary: Path | None = None
        try:
            self.staging.mkdir(mode=0o700, exist_ok=True)
            if self.staging.stat().st_dev != self.path.parent.stat().st_dev:
                raise Broken(
                    f"{self.staging} and {self.path.parent} are on two file systems; a rename would not be atomic",
                    hint="Give a staging directory beside the watched one, outside of it.",
                )
            # a fixed name: what a crash left behind is overwritten and never piles up
            temporary = self.staging / self.path.name
            seen = _write(temporary, content)
            temporary.replace(self.path)
            temporary = None
            _flush_directory(self.path.parent)
        except OSError as error:
            raise _failure(error, self.path) from None
        finally:
            if temporary is not None:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
        return seen


def _write(path: Path, content: bytes) -> _Seen:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), _MODE)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return _seen(os.fstat(file.fileno()))


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _seen(status: os.stat_result) -> _Seen:
    return _Seen(status.st_ino, status.st_size, status.st_mtime_ns)


def _failure(error: OSError, path: Path) -> CloudLunacyError:
    known = _PASSING.get(error.errno or 0)
    if known is not None:
        reason, what, hint = known
        return Transient(f"cannot write {path}: {what}", reason=reason, hint=hint)
    return Broken(f"cannot write {path}: {error.strerror or type(error).__name__}", hint="Check owner and mode.")
