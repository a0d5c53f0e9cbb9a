"""The newest publication, and what people approved."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from reconciler.store.protocols import Approval, Publication, Retained
from reconciler.store.tables.text import dump, load, storable, unreadable


def get(connection: sqlite3.Connection) -> Publication | None:
    row = connection.execute("SELECT generation, revision, published_at, document FROM publication").fetchone()
    if row is None:
        return None
    document = load(row[3], f"The publication of generation {row[0]}")
    if document is None:
        return None
    try:
        return Publication(*row[:3], **_fields(document))
    except (KeyError, TypeError, ValueError) as error:
        unreadable(f"The publication of generation {row[0]}", error)
        return None


def encode(publication: Publication) -> str:
    """Write the part that has no column of its own."""
    agents = publication.agents
    return dump(
        {
            "retained": [[kept.path, kept.blob, dict(kept.compiled)] for kept in publication.retained],
            "agents": None if agents is None else {name: list(at) for name, at in agents.items()},
        }
    )


def save(connection: sqlite3.Connection, publication: Publication, document: str) -> None:
    """Raise ValueError when the stored generation is newer."""
    newest = generation(connection)
    if newest > publication.generation:
        raise ValueError(f"generation {publication.generation} is older than generation {newest}, which is published")
    connection.execute(
        "INSERT OR REPLACE INTO publication (one, generation, revision, published_at, document) VALUES (1, ?, ?, ?, ?)",
        (publication.generation, publication.revision, publication.published_at, document),
    )


def generation(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT generation FROM publication").fetchone()
    return 0 if row is None else int(row[0])


def approve(connection: sqlite3.Connection, approval: Approval) -> None:
    """Who approved first stays on record."""
    connection.execute(
        "INSERT INTO approvals (checksum, approved_by, approved_at) VALUES (?, ?, ?) ON CONFLICT (checksum) DO NOTHING",
        (approval.checksum, storable(approval.approved_by), approval.approved_at),
    )


def approval(connection: sqlite3.Connection, checksum: str) -> Approval | None:
    row = connection.execute(
        "SELECT checksum, approved_by, approved_at FROM approvals WHERE checksum = ?", (checksum,)
    ).fetchone()
    return None if row is None else Approval(*row)


def _fields(document: Mapping[str, Any]) -> dict[str, Any]:
    agents = document["agents"]
    return {
        "retained": tuple(Retained(path, blob, compiled) for path, blob, compiled in document["retained"]),
        "agents": None if agents is None else {name: (at, digest) for name, (at, digest) in agents.items()},
    }
