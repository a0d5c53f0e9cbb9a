"""The last that was seen of each agent."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from reconciler.store.protocols import AgentObservation
from reconciler.store.tables.text import dump, load, storable, unreadable


def save(connection: sqlite3.Connection, observations: Iterable[AgentObservation]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO observations (name, connected, last_seen, document) VALUES (?, ?, ?, ?)",
        [(seen.name, seen.connected, seen.last_seen, _document(seen)) for seen in observations],
    )


def every(connection: sqlite3.Connection) -> Sequence[AgentObservation]:
    rows = connection.execute("SELECT name, connected, last_seen, document FROM observations ORDER BY name").fetchall()
    return tuple(seen for seen in map(_decode, rows) if seen is not None)


def forget(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("DELETE FROM observations WHERE name = ?", (name,))


def _document(seen: AgentObservation) -> str:
    return dump(
        [
            seen.applied_generation,
            seen.applied_digest,
            seen.version,
            seen.outcome,
            storable(seen.message),
            [dict(item) for item in seen.items],
            dict(seen.metrics),
        ]
    )


def _decode(row: tuple[Any, ...]) -> AgentObservation | None:
    what = f"What was seen of agent {row[0]}"
    document = load(row[3], what)
    if document is None:
        return None
    try:
        generation, digest, version, outcome, message, items, metrics = document
        return AgentObservation(
            row[0], bool(row[1]), row[2], generation, digest, version, outcome, message, tuple(items), metrics
        )
    except (TypeError, ValueError) as error:
        unreadable(what, error)
        return None
