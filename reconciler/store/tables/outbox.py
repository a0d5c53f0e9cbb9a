"""Accepted writes that are not yet on the remote."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from reconciler.store.protocols import OutboxEntry
from reconciler.store.tables.text import dump, load, storable


def put(connection: sqlite3.Connection, entry: OutboxEntry) -> None:
    connection.execute(
        "INSERT INTO outbox (id, kind, payload, accepted_at, attempts, last_error) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO NOTHING",
        (
            entry.id,
            entry.kind,
            dump(dict(entry.payload)),
            entry.accepted_at,
            entry.attempts,
            storable(entry.last_error),
        ),
    )


def pending(connection: sqlite3.Connection, limit: int) -> Sequence[OutboxEntry]:
    rows = connection.execute(
        "SELECT id, kind, payload, accepted_at, attempts, last_error FROM outbox WHERE outcome IS NULL"
        " ORDER BY accepted_at, seq LIMIT ?",
        (max(limit, 0),),
    ).fetchall()
    read = [(row, load(row[2], f"Outbox entry {row[0]}")) for row in rows]
    # An entry that does not read back stays pending: it shows in the backlog until a person looks.
    return tuple(OutboxEntry(row[0], row[1], payload, *row[3:]) for row, payload in read if isinstance(payload, dict))


def settle(connection: sqlite3.Connection, outcomes: Mapping[str, tuple[str, str | None]], now: float) -> None:
    connection.executemany(
        "UPDATE outbox SET outcome = ?, revision = ?, settled_at = ? WHERE id = ? AND outcome IS NULL",
        [(storable(outcome), revision, now, entry_id) for entry_id, (outcome, revision) in outcomes.items()],
    )


def failed(connection: sqlite3.Connection, entry_ids: Sequence[str], error: str) -> None:
    connection.executemany(
        "UPDATE outbox SET attempts = attempts + 1, last_error = ? WHERE id = ? AND outcome IS NULL",
        [(storable(error), entry_id) for entry_id in entry_ids],
    )


def outcome(connection: sqlite3.Connection, entry_id: str) -> tuple[str, str | None] | None:
    row: tuple[str, str | None] | None = connection.execute(
        "SELECT outcome, revision FROM outbox WHERE id = ? AND outcome IS NOT NULL", (entry_id,)
    ).fetchone()
    return row


def backlog(connection: sqlite3.Connection) -> tuple[int, float | None]:
    row: tuple[int, float | None] = connection.execute(
        "SELECT count(*), min(accepted_at) FROM outbox WHERE outcome IS NULL"
    ).fetchone()
    return row


def prune(connection: sqlite3.Connection, before: float) -> int:
    return connection.execute("DELETE FROM outbox WHERE outcome IS NOT NULL AND settled_at < ?", (before,)).rowcount
