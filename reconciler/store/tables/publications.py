"""The newest publication, and what people approved."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from reconciler.store.protocols import Approval, Publication, Retained
from reconciler.store.tables.text import dump, load, storable, unreadable

NEWEST: Final = "newest"
CONFIRMED: Final = "confirmed"
COLUMNS: Final = "generation, revision, published_at, confirmed, document"


def get(connection: sqlite3.Connection, slot: str = NEWEST) -> Publication | None:
    row = connection.execute(f"SELECT {COLUMNS} FROM publication WHERE slot = ?", (slot,)).fetchone()  # noqa: S608
    if row is None:
        return None
    what = f"The publication of generation {row[0]}"
    document = load(row[4], what)
    if document is None:
        return None
    try:
        return _decode(row, document)
    except (KeyError, TypeError, ValueError) as error:
        unreadable(what, error)
        return None


def encode(publication: Publication) -> str:
    """Write the part that has no column of its own."""
    agents, releases = publication.agents, publication.releases
    return dump(
        {
            "retained": [
                {
                    "path": kept.path,
                    "blob": kept.blob,
                    "last_good": kept.last_good,
                    "findings": [dict(finding) for finding in kept.findings],
                    "compiled": None if kept.compiled is None else list(kept.compiled),
                    "claims": None if kept.claims is None else list(kept.claims),
                    "selected": None if kept.selected is None else list(kept.selected),
                }
                for kept in publication.retained
            ],
            "agents": None if agents is None else {name: list(at) for name, at in agents.items()},
            "front_digest": publication.front_digest,
            **({"rollouts": [dict(one) for one in publication.rollouts]} if publication.rollouts else {}),
            **({"releases": {agent: list(names) for agent, names in releases.items()}} if releases else {}),
        }
    )


def save(connection: sqlite3.Connection, publication: Publication, document: str) -> None:
    """Raise ValueError when the stored generation is newer."""
    newest = generation(connection)
    if newest > publication.generation:
        raise ValueError(f"generation {publication.generation} is older than generation {newest}, which is published")
    connection.execute(
        f"INSERT OR REPLACE INTO publication (slot, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608
        (NEWEST, publication.generation, publication.revision, publication.published_at, False, document),
    )
    if publication.confirmed:
        confirm(connection, publication.generation)


def confirm(connection: sqlite3.Connection, confirmed: int) -> None:
    connection.execute("UPDATE publication SET confirmed = 1 WHERE slot = ? AND generation = ?", (NEWEST, confirmed))
    connection.execute(
        f"INSERT OR REPLACE INTO publication (slot, {COLUMNS})"  # noqa: S608
        f" SELECT ?, {COLUMNS} FROM publication WHERE slot = ? AND generation = ?",
        (CONFIRMED, NEWEST, confirmed),
    )


def generation(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT generation FROM publication WHERE slot = ?", (NEWEST,)).fetchone()
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


def approvals(connection: sqlite3.Connection, limit: int, before: str) -> Sequence[Approval]:
    condition, values = "1", list[str | int]()
    if before:
        condition = "rowid < COALESCE((SELECT rowid FROM approvals WHERE checksum = ?), 0)"
        values.append(before)
    rows = connection.execute(
        f"SELECT checksum, approved_by, approved_at FROM approvals WHERE {condition} ORDER BY rowid DESC LIMIT ?",  # noqa: S608
        (*values, max(limit, 0)),
    )
    return tuple(Approval(*row) for row in rows)


def _decode(row: tuple[Any, ...], document: Mapping[str, Any]) -> Publication:
    agents = document["agents"]
    return Publication(
        generation=row[0],
        revision=row[1],
        published_at=row[2],
        retained=tuple(Retained(**{**kept, "findings": tuple(kept["findings"])}) for kept in document["retained"]),
        agents=None if agents is None else {name: (at, digest) for name, (at, digest) in agents.items()},
        front_digest=document["front_digest"],
        confirmed=bool(row[3]),
        rollouts=tuple(document.get("rollouts", ())),
        releases={agent: tuple(names) for agent, names in document.get("releases", {}).items()},
    )
