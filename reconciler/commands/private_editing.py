"""A text in a person's editor that no disk and no other user sees, and of which nothing stays.

The file lies in a directory of mode 0700, in memory (tmpfs) where the system has such a place. Editors leave copies
beside it; the whole directory is overwritten and removed, also when the editor fails or this process is asked to end.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from reconciler.commands.output import tell
from reconciler.errors import Broken

IN_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - only a directory of our own in it is used
MAX_SIZE: Final = 1024 * 1024
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


def editor_command(environment: Mapping[str, str]) -> list[str]:
    """Return the person's editor as a list of words, by the variables that say so; else ``vi``."""
    words = environment.get("VISUAL") or environment.get("EDITOR") or "vi"
    try:
        command = shlex.split(words)
    except ValueError:
        command = []
    if not command:
        raise Broken("EDITOR holds no command.", hint="Set it to one, such as nano.")
    return command


@contextmanager
def private_file(name: str, text: str, environment: Mapping[str, str]) -> Iterator[Path]:
    """Give a file with ``text``, and remove every trace of it at the end, whatever ends the block."""
    with _ended_orderly():
        directory = Path(tempfile.mkdtemp(prefix="cloudlunacy-", dir=_place(environment)))
        try:
            file = directory / name
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
                stream.write(text)
            yield file
        finally:
            for number in _ENDING:  # nobody who asks twice interrupts this
                signal.signal(number, signal.SIG_IGN)
            shred(directory)


def edit(file: Path, command: list[str]) -> str:
    """Let the person edit ``file``, and return what it holds then.

    Raises:
        Broken: when the editor cannot be started or fails, or what it leaves is no text. No message holds any of it.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)  # the editor's; ignoring it would be inherited
    try:
        code = subprocess.run([*command, str(file)], check=False).returncode
    except OSError as error:
        raise Broken(f"{command[0]} cannot be started: {error.strerror}.", hint="Set EDITOR to an editor.") from None
    finally:
        signal.signal(signal.SIGINT, before)
    if code:
        raise Broken(f"{command[0]} ended with code {code}; nothing was changed.")
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_SIZE + 1)
        return content.decode() if len(content) <= MAX_SIZE else _too_large()
    except (OSError, UnicodeDecodeError):
        raise Broken("What the editor left cannot be read as UTF-8 text; nothing was changed.") from None


def shred(directory: Path) -> None:
    """Overwrite and remove every file in ``directory``, and itself."""
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("r+b") as stream:
                stream.write(b"\0" * path.stat().st_size)
                stream.flush()
                os.fsync(stream.fileno())
    shutil.rmtree(directory)


def _too_large() -> str:
    raise Broken(f"What the editor left is larger than {MAX_SIZE:,} bytes; nothing was changed.")


def _place(environment: Mapping[str, str]) -> Path | None:
    runtime = environment.get("XDG_RUNTIME_DIR")
    for place in (IN_MEMORY, *([Path(runtime)] if runtime else [])):
        if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
            return place
    tell(f"There is no directory in memory here: while you edit, the values lie in {tempfile.gettempdir()}.")
    return None


@contextmanager
def _ended_orderly() -> Iterator[None]:
    """Turn signals that would end this process at once into an exit that cleans up."""

    def leave(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
