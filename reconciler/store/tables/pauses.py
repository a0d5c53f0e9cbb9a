"""Deployments whose roll-outs operators have paused."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from reconciler.store.pauses import Paused
from reconciler.store.tables.text import storable


def put(connection: sqlite3.Connection, paused: Paused) -> None:
    connection.execute(
        "INSERT INTO paused_rollouts (deployment, paused_by, paused_at) VALUES (?, ?, ?)"
        " ON CONFLICT (deployment) DO NOTHING",
        (paused.deployment, storable(paused.by), paused.at),
    )


def remove(connection: sqlite3.Connection, deployment: str) -> None:
    connection.execute("DELETE FROM paused_rollouts WHERE deployment = ?", (deployment,))


def every(connection: sqlite3.Connection) -> Sequence[Paused]:
    rows = connection.execute("SELECT deployment, paused_by, paused_at FROM paused_rollouts ORDER BY deployment")
    return tuple(Paused(*row) for row in rows.fetchall())
