"""Convergence records: one row a revision, replaced as the revision goes its way."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from reconciler.store.protocols import RevisionRecord
from reconciler.store.tables.text import dump, load, storable, unreadable
from schemas.problem import Problem

COLUMNS: Final = "revision, generation, state, reason, message, updated_at, document"
ABBREVIATED: Final = re.compile(r"[0-9a-f]{7,64}")
AFTER_HEX: Final = "g"
"""Sorts after every hex digit: ``prefix + AFTER_HEX`` ends the range of what starts with ``prefix``."""


def encode(record: RevisionRecord) -> tuple[Any, ...]:
    """Return the row of a record, in the order of ``COLUMNS``."""
    document = {
        "stages": dict(record.stages),
        "agents": {name: list(state) for name, state in record.agents.items()},
        "quarantined": [problem.model_dump(mode="json") for problem in record.quarantined],
        "plan": None if record.plan is None else dict(record.plan),
        "commit": dict(record.commit),
    }
    return (
        record.revision,
        record.generation,
        record.state,
        record.reason,
        storable(record.message),
        record.updated_at,
        dump(document),
    )


def save(connection: sqlite3.Connection, row: tuple[Any, ...]) -> None:
    connection.execute(f"INSERT OR REPLACE INTO records ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608


def get(connection: sqlite3.Connection, revision: str) -> RevisionRecord | None:
    if not ABBREVIATED.fullmatch(revision):
        return None
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM records WHERE revision >= ? AND revision < ? ORDER BY revision LIMIT 2",  # noqa: S608
        (revision, revision + AFTER_HEX),
    ).fetchall()
    if len(rows) == 2 and rows[0][0] != revision:
        return None
    return _decode(rows[0]) if rows else None


def newest(connection: sqlite3.Connection, limit: int, before: float | None) -> Sequence[RevisionRecord]:
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM records WHERE updated_at < ? ORDER BY updated_at DESC, rowid DESC LIMIT ?",  # noqa: S608
        (float("inf") if before is None else before, max(limit, 0)),
    ).fetchall()
    return tuple(record for record in map(_decode, rows) if record is not None)


def prune(connection: sqlite3.Connection, keep: int) -> int:
    return connection.execute(
        "DELETE FROM records WHERE rowid NOT IN"
        " (SELECT rowid FROM records ORDER BY updated_at DESC, rowid DESC LIMIT ?)",
        (max(keep, 0),),
    ).rowcount


def _decode(row: tuple[Any, ...]) -> RevisionRecord | None:
    what = f"The record of revision {row[0]}"
    document = load(row[6], what)
    if document is None:
        return None
    try:
        return RevisionRecord(
            revision=row[0],
            generation=row[1],
            state=row[2],
            reason=row[3],
            message=row[4],
            stages=document["stages"],
            agents={name: (state, at) for name, (state, at) in document["agents"].items()},
            quarantined=tuple(Problem.model_validate(problem) for problem in document["quarantined"]),
            plan=document["plan"],
            commit=document["commit"],
            updated_at=row[5],
        )
    except (KeyError, TypeError, ValueError) as error:
        # Another version of the program may have written it: history is not worth more than one line in the log.
        unreadable(what, error)
        return None
