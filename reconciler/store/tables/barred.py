"""Keys of agents that an operator locked out."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from reconciler.store.protocols import Barred
from reconciler.store.tables.text import storable


def put(connection: sqlite3.Connection, barred: Barred) -> None:
    """Add a bar, replacing that of the same key, and end the tokens with which the agent could enrol again."""
    connection.execute(
        "INSERT OR REPLACE INTO barred (name, thumbprint, quarantine, reason, barred_by, barred_at, entry_id)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            barred.name,
            barred.thumbprint,
            int(barred.quarantine),
            storable(barred.reason),
            barred.by,
            barred.at,
            barred.entry_id,
        ),
    )
    connection.execute("DELETE FROM tokens WHERE agent = ? AND used_by IS NULL", (barred.name,))


def every(connection: sqlite3.Connection) -> Sequence[Barred]:
    rows = connection.execute(
        "SELECT name, thumbprint, quarantine, reason, barred_by, barred_at, entry_id FROM barred ORDER BY barred_at"
    ).fetchall()
    return tuple(Barred(row[0], row[1], bool(row[2]), *row[3:]) for row in rows)


def remove(connection: sqlite3.Connection, barred: Barred) -> None:
    connection.execute(
        "DELETE FROM barred WHERE name = ? AND thumbprint = ? AND entry_id = ?",
        (barred.name, barred.thumbprint, barred.entry_id),
    )
