"""Commits that the control plane made, and the files that each of them changes.

Their paths stand in one column, one a line: a path that may be written holds no line feed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

KEPT_SECONDS: Final = 400 * 86_400.0
"""A proposal that is merged later than this has to be signed."""


def put(connection: sqlite3.Connection, commits: Mapping[str, tuple[str, ...]], now: float) -> None:
    """Add commits, and forget the oldest."""
    connection.executemany(
        "INSERT INTO own_commits (revision, path, made_at) VALUES (?, ?, ?) ON CONFLICT (revision) DO NOTHING",
        [(revision, "\n".join(paths), now) for revision, paths in commits.items()],
    )
    connection.execute("DELETE FROM own_commits WHERE made_at < ?", (now - KEPT_SECONDS,))


def paths_of(connection: sqlite3.Connection, revision: str) -> tuple[str, ...] | None:
    row = connection.execute("SELECT path FROM own_commits WHERE revision = ?", (revision,)).fetchone()
    return None if row is None else tuple(str(row[0]).split("\n"))
