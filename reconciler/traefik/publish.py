"""The commit point: one front's file, replaced in one step.

1. The text goes to a temporary file *outside* the watched directory, because Traefik reloads for any file in it, and
   on the same file system, because only there a rename is atomic.
2. The file is flushed to the disk, renamed onto the front's file, and the directory is flushed too: after a power loss
   there is the old text or the new one.

Step 1 is :meth:`FrontFile.stage` and step 2 :meth:`FrontFile.put_in_place`, for callers who have to do something in
between; :meth:`FrontFile.publish` does both. Calls block for as long as the disk takes (10 MB: tens of milliseconds);
callers in an event loop use a thread.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Sequence
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
_HEADER: Final = re.compile(
    rb'#[^\n]*\n# generation ([1-9][0-9]{0,14}), revision "(?!0+")((?:[0-9a-f]{40}|[0-9a-f]{64}))"\n'
)
"""The first lines of ``templates/traefik/dynamic.yml.j2``. Only zeros are ``cloudlunacy render``'s: of no commit."""
_HEADER_BYTES: Final = 1024


Text = Sequence[bytes]
"""A file's content in pieces, one after the other. Joining them would take longer than writing them."""


class _Seen(NamedTuple):
    """What ``stat`` says of the file that we wrote; another file or another write differs in one of these."""

    inode: int
    size: int
    modified: int


class Named(NamedTuple):
    """What a front's file says of itself."""

    generation: int
    revision: str


class Staged(NamedTuple):
    """A text that is on the disk and not yet in place."""

    text: Text
    seen: _Seen


class FrontFile:
    """The file that one front's Traefik watches.

    ``staging`` is where the text is written first; by default ``.cloudlunacy-<file name>`` beside the directory.
    """

    def __init__(self, path: Path, *, staging: Path | None = None) -> None:
        self.path = path
        self.staging = staging if staging is not None else path.parent.parent / f".cloudlunacy-{path.name}"
        self.digest = ""
        """SHA-256 (hex) of the text that was published last; empty before the first one."""
        self.holds: Named | None = None
        """What the text says of itself; None where it says nothing of the kind."""
        self._seen: _Seen | None = None

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
            raise _failure(error, self.path, "read") from None
        self._remember((content,), seen, digest_of_text((content,)))
        return text

    def named(self) -> Named | None:
        """Read which generation and revision the file says that it holds; None where it says nothing of the kind.

        Anybody may have edited or cut the file: what it names was published only if other evidence agrees.

        Raises:
            Transient: when the disk does not let it be read.
        """
        try:
            with self.path.open("rb") as file:
                return _named(file.read(_HEADER_BYTES))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failure(error, self.path, "read") from None

    def publish(self, text: str | Text) -> str:
        """Put ``text`` in place and return its SHA-256 (hex).

        Raises:
            Transient: ``DiskFull``, ``DiskError``, ``ReadOnly``, ``DirectoryMissing``, ``NoFileDescriptors``.
            Broken: when the directories are not writable for us, or not on one file system.
        """
        pieces = (text.encode(),) if isinstance(text, str) else text
        self.put_in_place(self.stage(pieces), digest_of_text(pieces))
        return self.digest

    def stage(self, text: Text) -> Staged:
        """Write ``text`` beside the watched directory and flush it to the disk; nobody sees it yet.

        Raises:
            Transient, Broken: as :meth:`publish`.
        """
        is_whole = False
        try:
            self.staging.mkdir(mode=0o700, exist_ok=True)
            if self.staging.stat().st_dev != self.path.parent.stat().st_dev:
                raise Broken(
                    f"{self.staging} and {self.path.parent} are on two file systems; a rename would not be atomic.",
                    hint="Give a staging directory beside the watched one, outside of it.",
                )
            seen = _write(self._temporary, text)
            is_whole = True
        except OSError as error:
            raise _failure(error, self._temporary) from None
        finally:
            if not is_whole:
                self.discard()
        return Staged(text, seen)

    def put_in_place(self, staged: Staged, digest: str) -> None:
        """Make what was staged last the front's file. ``digest`` is its SHA-256 (hex).

        Raises:
            Transient, Broken: as :meth:`publish`.
        """
        try:
            self._temporary.replace(self.path)
            _flush_directory(self.path.parent)
        except OSError as error:
            self.discard()
            raise _failure(error, self.path) from None
        self._remember(staged.text, staged.seen, digest)

    def discard(self) -> None:
        """Give up what is staged, if anything is. Raises nothing: what cannot be removed is written over."""
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)

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
            raise _failure(error, self.path, "read") from None
        if hashlib.sha256(content).hexdigest() != self.digest:
            return "changed"
        self._seen = seen
        return None

    @property
    def _temporary(self) -> Path:
        # a fixed name: what a crash left behind is overwritten and never piles up
        return self.staging / self.path.name

    def _remember(self, text: Text, seen: _Seen, digest: str) -> None:
        self.holds, self._seen, self.digest = _named(text[0][:_HEADER_BYTES] if text else b""), seen, digest


def _named(head: bytes) -> Named | None:
    found = _HEADER.match(head)
    return None if found is None else Named(int(found[1]), found[2].decode("ascii"))


def digest_of_text(text: Text) -> str:
    """Return the SHA-256 of a front's file, in hex."""
    digest = hashlib.sha256()
    for piece in text:
        digest.update(piece)
    return digest.hexdigest()


def _write(path: Path, text: Text) -> _Seen:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), _MODE)
        file.writelines(text)
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


def _failure(error: OSError, path: Path, doing: str = "write") -> CloudLunacyError:
    """Return what the error means. It names the file itself where it knows it; elsewhere that is ``path``."""
    what = f"cannot {doing} {error.filename2 or error.filename or path}"
    known = _PASSING.get(error.errno or 0)
    if known is not None:
        reason, why, hint = known
        return Transient(f"{what}: {why}.", reason=reason, hint=hint)
    return Broken(f"{what}: {error.strerror or type(error).__name__}.", hint="Check owner and mode.")
