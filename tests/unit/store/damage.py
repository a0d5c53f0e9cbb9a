"""Ways to hurt a database file."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

PAGE: Final = 4096


def overwrite_page(path: Path, number: int) -> None:
    """Write nonsense over a page (1-based) of a closed database."""
    with path.open("r+b") as file:
        file.seek((number - 1) * PAGE)
        file.write(b"\xa5" * PAGE)


def overwrite_from(path: Path, first: int) -> None:
    """Write nonsense from a page (1-based) to the end."""
    for number in range(first, path.stat().st_size // PAGE + 1):
        overwrite_page(path, number)


def report_damage(_connection: sqlite3.Connection) -> None:
    """Be a job that meets a damaged page."""
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    raise error
