"""Convergence records: one row a revision, replaced as the revision goes its way."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from reconciler.store.protocols import RevisionRecord
from reconciler.store.tables.text import dump, load, storable, unreadable
from schemas.problem import Problem

COLUMNS: Final = "revision, generation, state, reason, message, updated_at, plan, document"
NEWER: Final = ", ".join(f"{one} = excluded.{one}" for one in COLUMNS.split(", ")[1:])
SELECT: Final = (
    "SELECT revision, generation, state, reason, message, updated_at, plan, records.document, plans.document"
    " FROM records LEFT JOIN plans USING (revision)"
)
SUMMARISED: Final = SELECT.partition(", plans.document")[0] + ", json_object('checksum', plan)"
"""Of plans what tells them apart, and nothing else: a plan may be megabytes."""
LAST: Final = 2**63 - 1
ABBREVIATED: Final = re.compile(r"[0-9a-f]{7,64}")
AFTER_HEX: Final = "g"
"""Sorts after every hex digit: ``prefix + AFTER_HEX`` ends the range of what starts with ``prefix``."""


def encode(record: RevisionRecord) -> tuple[Any, ...]:
    """Return the row of a record, in the order of ``COLUMNS``."""
    document = {
        "stages": dict(record.stages),
        "agents": {name: list(state) for name, state in record.agents.items()},
        "quarantined": [problem.model_dump(mode="json") for problem in record.quarantined],
        "commit": dict(record.commit),
        **({"rollouts": dict(record.rollouts)} if record.rollouts else {}),
    }
    return (
        record.revision,
        record.generation,
        record.state,
        record.reason,
        storable(record.message),
        record.updated_at,
        None if record.plan is None else plan_checksum(record.plan),
        dump(document),
    )


def plan_checksum(plan: Mapping[str, Any]) -> str:
    """Return what tells plans of one revision apart, empty where the plan does not say."""
    return str(plan.get("checksum", ""))


def save(connection: sqlite3.Connection, row: tuple[Any, ...], plan: str | None) -> None:
    """Write a row and, unless it is None because it stands there already, the JSON of its plan."""
    # An update and no replacement: the row keeps its id, which is its place in pages
    connection.execute(
        f"INSERT INTO records ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (revision) DO UPDATE SET {NEWER}",  # noqa: S608
        row,
    )
    if plan is not None:
        connection.execute(
            "INSERT OR REPLACE INTO plans (revision, checksum, document) VALUES (?, ?, ?)", (row[0], row[6], plan)
        )


def get(connection: sqlite3.Connection, revision: str) -> RevisionRecord | None:
    if not ABBREVIATED.fullmatch(revision):
        return None
    rows = connection.execute(
        f"{SELECT} WHERE revision >= ? AND revision < ? ORDER BY revision LIMIT 2",
        (revision, revision + AFTER_HEX),
    ).fetchall()
    if len(rows) == 2 and rows[0][0] != revision:
        return None
    return _decode(rows[0]) if rows else None


def newest(
    connection: sqlite3.Connection, limit: int, before: float | None, plans: bool = True
) -> Sequence[RevisionRecord]:
    what = SELECT if plans else f"{SUMMARISED} FROM records"
    rows = connection.execute(
        f"{what} WHERE updated_at < ? ORDER BY updated_at DESC, records.rowid DESC LIMIT ?",
        (float("inf") if before is None else before, max(limit, 0)),
    ).fetchall()
    return tuple(record for record in map(_decode, rows) if record is not None)


def page(
    connection: sqlite3.Connection, limit: int, before: int | None, states: Collection[str]
) -> Sequence[tuple[int, RevisionRecord]]:
    conditions, values = ["records.rowid < ?"], list[int | str]([LAST if before is None else before])
    if states:
        conditions.append(f"state IN ({', '.join('?' * len(states))})")
        values.extend(sorted(states))
    rows = connection.execute(
        f"{SUMMARISED}, records.rowid FROM records WHERE {' AND '.join(conditions)}"
        " ORDER BY records.rowid DESC LIMIT ?",
        (*values, max(limit, 0)),
    ).fetchall()
    return tuple((row[-1], record) for row in rows if (record := _decode(row)) is not None)


def prune(connection: sqlite3.Connection, keep: int) -> int:
    deleted = connection.execute(
        "DELETE FROM records WHERE rowid NOT IN"
        " (SELECT rowid FROM records ORDER BY updated_at DESC, rowid DESC LIMIT ?)",
        (max(keep, 0),),
    ).rowcount
    connection.execute("DELETE FROM plans WHERE revision NOT IN (SELECT revision FROM records)")
    return deleted


def _decode(row: tuple[Any, ...]) -> RevisionRecord | None:
    what = f"The record of revision {row[0]}"
    document = load(row[7], what)
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
            plan=None if row[6] is None or row[8] is None else load(row[8], what),
            commit=document["commit"],
            updated_at=row[5],
            rollouts=document.get("rollouts", {}),
        )
    except (KeyError, TypeError, ValueError) as error:
        # Another version of the program may have written it: history is not worth more than one line in the log.
        unreadable(what, error)
        return None
