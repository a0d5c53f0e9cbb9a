"""The timeline: rows are appended and, when old, pruned; never changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from reconciler.store.protocols import Event
from reconciler.store.tables.text import storable

COLUMNS: Final = "time, type, severity, subject, message, revision, actor, id"


def append(connection: sqlite3.Connection, event: Event) -> Event:
    values = (event.type, event.severity, event.subject, event.message, event.revision, event.actor)
    row = connection.execute(
        "INSERT INTO events (time, type, severity, subject, message, revision, actor) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (event.time, *map(storable, values)),
    ).lastrowid
    assert row is not None
    return replace(event, id=row)


def after(connection: sqlite3.Connection, last: int, limit: int, subject: str | None) -> Sequence[Event]:
    where, values = _where("id > ?", last, subject)
    return _select(connection, f"WHERE {where} ORDER BY id LIMIT ?", (*values, max(limit, 0)))


def prune(connection: sqlite3.Connection, keep: int, before: float) -> int:
    """Delete what is older than ``before`` or beyond the newest ``keep``."""
    return connection.execute(
        "DELETE FROM events WHERE time < ? OR id NOT IN (SELECT id FROM events ORDER BY id DESC LIMIT ?)",
        (before, max(keep, 0)),
    ).rowcount


def _where(condition: str, event_id: int, subject: str | None) -> tuple[str, tuple[int | str, ...]]:
    if subject is None:
        return condition, (event_id,)
    return f"{condition} AND subject = ?", (event_id, storable(subject))


def _select(connection: sqlite3.Connection, rest: str, values: tuple[int | str, ...]) -> Sequence[Event]:
    rows = connection.execute(f"SELECT {COLUMNS} FROM events {rest}", values)  # noqa: S608 - text from this module
    return tuple(Event(*row) for row in rows)
