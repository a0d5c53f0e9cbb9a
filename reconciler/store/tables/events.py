"""The timeline: rows are appended and, when old, pruned; never changed."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from reconciler.store.protocols import Event, EventFilter
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


def select(
    connection: sqlite3.Connection,
    *,
    after: int,
    before: int | None,
    limit: int,
    newest_first: bool,
    subject: str | None,
    wanted: EventFilter,
) -> Sequence[Event]:
    conditions, values = ["id > ?"], list[int | float | str]([after])
    if before is not None:
        conditions.append("id < ?")
        values.append(before)
    if subject is not None:
        conditions.append("subject = ?")
        values.append(storable(subject))
    for condition, held in _conditions(wanted):
        conditions.append(condition)
        values.extend(held)
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM events WHERE {' AND '.join(conditions)}"  # noqa: S608 - text from this module
        f" ORDER BY id {'DESC' if newest_first else 'ASC'} LIMIT ?",
        (*values, max(limit, 0)),
    )
    return tuple(Event(*row) for row in rows)


def _conditions(wanted: EventFilter) -> Iterator[tuple[str, Sequence[int | float | str]]]:
    """Return what the filter asks of a row. The ``+`` keeps to the order of ids, in which most answers are near.

    By another index SQLite would have to sort all that it finds, which may be every row there is.
    """
    for column, found in (("type", wanted.types), ("severity", wanted.severities)):
        if found:
            yield f"+{column} IN ({', '.join('?' * len(found))})", [storable(one) for one in sorted(found)]
    for column, prefix in (("subject", wanted.under), ("revision", wanted.revision)):
        if prefix:
            yield f"substr(+{column}, 1, ?) = ?", (len(storable(prefix)), storable(prefix))
    if wanted.actor:
        yield "+actor = ?", (storable(wanted.actor),)
    for word in wanted.words:
        like = f"%{_literally(storable(word))}%"
        yield "(message LIKE ? ESCAPE '!' OR +subject LIKE ? ESCAPE '!' OR type LIKE ? ESCAPE '!')", (like, like, like)
    if wanted.since is not None:
        yield "+time >= ?", (wanted.since,)
    if wanted.until is not None:
        yield "+time < ?", (wanted.until,)


def _literally(word: str) -> str:
    return re.sub("([!%_])", r"!\1", word)


def prune(connection: sqlite3.Connection, keep: int, before: float) -> int:
    """Delete what is older than ``before`` or beyond the newest ``keep``."""
    return connection.execute(
        "DELETE FROM events WHERE time < ? OR id NOT IN (SELECT id FROM events ORDER BY id DESC LIMIT ?)",
        (before, max(keep, 0)),
    ).rowcount
