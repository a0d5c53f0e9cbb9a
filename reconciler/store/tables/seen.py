"""Where agents' deployments answer, and agents that operators drain."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from reconciler.store.seen import Drained, SeenAgent
from reconciler.store.tables.text import dump, load, storable, unreadable


def save(connection: sqlite3.Connection, agents: Iterable[SeenAgent]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO seen_agents (name, document) VALUES (?, ?)",
        [(one.name, dump({"told": [dict(told) for told in one.told], "out": list(one.out)})) for one in agents],
    )


def every(connection: sqlite3.Connection) -> Sequence[SeenAgent]:
    rows = connection.execute("SELECT name, document FROM seen_agents ORDER BY name").fetchall()
    return tuple(one for one in map(_decode, rows) if one is not None)


def _decode(row: tuple[Any, ...]) -> SeenAgent | None:
    what = f"What agent {row[0]} told"
    document = load(row[1], what)
    if document is None:
        return None
    try:
        out = tuple((str(team), str(name), int(port), float(since)) for team, name, port, since in document["out"])
        return SeenAgent(row[0], tuple(document["told"]), out)
    except (KeyError, TypeError, ValueError) as error:
        unreadable(what, error)
        return None


def drain(connection: sqlite3.Connection, drained: Drained) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO drained_agents (name, reason, drained_by, drained_at, until) VALUES (?, ?, ?, ?, ?)",
        (drained.name, storable(drained.reason), storable(drained.by), drained.at, drained.until),
    )


def undrain(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("DELETE FROM drained_agents WHERE name = ?", (name,))


def drained(connection: sqlite3.Connection) -> Sequence[Drained]:
    rows = connection.execute(
        "SELECT name, reason, drained_by, drained_at, until FROM drained_agents ORDER BY name"
    ).fetchall()
    return tuple(Drained(*row) for row in rows)


def forget(connection: sqlite3.Connection, names: Iterable[str]) -> None:
    for name in names:
        undrain(connection, name)
        connection.execute("DELETE FROM seen_agents WHERE name = ?", (name,))
