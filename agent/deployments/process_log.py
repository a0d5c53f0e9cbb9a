"""What an instance wrote: files that end at a size, of which the last few are kept. PURE of everything but files.

``log`` is the newest, ``log.1`` the one before. The keeper writes them; standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.deployments.process_files import LOG

FILE_BYTES: Final = 10_000_000
FILES: Final = 3
_BLOCK: Final = 64 * 1024


class RotatingLog:
    """Writes. What the disk refuses is dropped, and said once there is room again: a program never waits for it."""

    def __init__(self, directory: Path, *, file_bytes: int = FILE_BYTES, files: int = FILES) -> None:
        self._path = directory / LOG
        self._file_bytes = file_bytes
        self._files = files
        self._descriptor = -1
        self._size = 0
        self._dropped = 0

    def write(self, content: bytes) -> None:
        if self._dropped and not self._try(f"[{self._dropped} bytes could not be written here]\n".encode()):
            self._dropped += len(content)
            return
        self._dropped = 0 if self._try(content) else self._dropped + len(content)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _try(self, content: bytes) -> bool:
        try:
            if self._size >= self._file_bytes:
                self._rotate()
            if self._descriptor < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o600)
                self._size = os.fstat(self._descriptor).st_size
            self._size += os.write(self._descriptor, content)
        except OSError:
            return False
        return True

    def _rotate(self) -> None:
        self.close()
        self._size = 0
        for number in range(self._files - 1, 0, -1):
            older = numbered(self._path, number - 1)
            if older.exists():
                older.replace(numbered(self._path, number))


def numbered(path: Path, number: int) -> Path:
    return path if number == 0 else path.with_name(f"{path.name}.{number}")


def tail(directory: Path, lines: int) -> list[str]:
    """Return the last lines, at most that many, oldest first. What cannot be read counts as empty."""
    found: list[bytes] = []
    rest = b""
    for number in range(FILES):
        for block in _backwards(numbered(directory / LOG, number)):
            rest = block + rest
            if rest.count(b"\n") > lines:
                break
        else:
            continue
        break
    found = rest.split(b"\n")
    if found and not found[-1]:
        found.pop()
    return [line.decode("utf-8", "replace") for line in found[-lines:]] if lines else []


def _backwards(path: Path) -> Iterator[bytes]:
    """Yield the blocks of a file, the last one first."""
    try:
        with path.open("rb") as file:
            position = file.seek(0, os.SEEK_END)
            while position > 0:
                size = min(_BLOCK, position)
                position -= size
                file.seek(position)
                yield file.read(size)
    except OSError:
        return


class Follower:
    """Reads what comes after now, over rotations."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOG
        self._descriptor = -1
        self._rest = b""
        self._open(os.SEEK_END)

    def lines(self) -> list[str]:
        """Return the whole lines that came since the last call."""
        content = self._read()
        if self._moved():
            content += self._read()
            self.close()
            self._open(os.SEEK_SET)
            content += self._read()
        *whole, self._rest = (self._rest + content).split(b"\n")
        return [line.decode("utf-8", "replace") for line in whole]

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self, whence: int) -> None:
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        os.lseek(self._descriptor, 0, whence)

    def _moved(self) -> bool:
        try:
            there = self._path.stat()
        except OSError:
            return False
        if self._descriptor < 0:
            return True
        mine = os.fstat(self._descriptor)
        return (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino)

    def _read(self) -> bytes:
        pieces = []
        while self._descriptor >= 0 and (piece := os.read(self._descriptor, _BLOCK)):
            pieces.append(piece)
        return b"".join(pieces)
