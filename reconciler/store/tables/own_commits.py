"""Commits that the control plane made, and the one file that each of them changes."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

KEPT_SECONDS: Final = 400 * 86_400.0
"""A proposal that is merged later than this has to be signed."""


def put(connection: sqlite3.Connection, commits: Mapping[str, str], now: float) -> None:
    """Add commits, and forget the oldest."""
    connection.executemany(
        "INSERT INTO own_commits (revision, path, made_at) VALUES (?, ?, ?) ON CONFLICT (revision) DO NOTHING",
        [(revision, path, now) for revision, path in commits.items()],
    )
    connection.execute("DELETE FROM own_commits WHERE made_at < ?", (now - KEPT_SECONDS,))


def path_of(connection: sqlite3.Connection, revision: str) -> str | None:
    row = connection.execute("SELECT path FROM own_commits WHERE revision = ?", (revision,)).fetchone()
    return None if row is None else str(row[0])
