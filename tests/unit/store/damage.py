"""Ways to hurt a database file."""

from __future__ import annotations

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
