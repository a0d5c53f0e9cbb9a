"""What is wrong, what was told and what waits to be told, in ``notices.db``. Without it people are told again."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from reconciler.store.engine import Database, Mode
from reconciler.store.schema import NOTICES_SCHEMA
from reconciler.store.tables.text import storable

Documents = Mapping[tuple[str, str], Mapping[str, Any]]
"""(subject, type) of a condition → JSON of what is kept of it."""


@dataclass(frozen=True, slots=True)
class WaitingNotice:
    """``document`` is the JSON of a notice."""

    channel: str
    document: Mapping[str, Any]
    id: int = 0
    """Set by the store; grows."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """Everything, as a start takes it up."""

    conditions: Documents
    waiting: Sequence[WaitingNotice]
    """Oldest first."""
    event: int
    """Id of the last event of the timeline that was looked at; 0 where none was."""


class NoticeStore(Protocol):
    """:class:`SQLiteNotices` is the embedded engine."""

    async def remembered(self) -> Remembered: ...

    async def keep(
        self, changed: Documents, gone: Collection[tuple[str, str]], notices: Sequence[WaitingNotice], event: int
    ) -> Sequence[WaitingNotice]:
        """Durable, all or none: what is kept of conditions, and what is to be told. Returns the notices with ids."""
        ...

    async def told(self, ids: Collection[int]) -> None:
        """Durable: these wait no more."""
        ...


class SQLiteNotices:
    """Open with :meth:`open`, close with :meth:`close`. Raises Transient and Broken."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(directory, NOTICES_SCHEMA, clock=clock)

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def remembered(self) -> Remembered:
        return await self._database.run(_remembered)

    async def keep(
        self, changed: Documents, gone: Collection[tuple[str, str]], notices: Sequence[WaitingNotice], event: int
    ) -> Sequence[WaitingNotice]:
        job = partial(_keep, changed=dict(changed), gone=tuple(gone), notices=tuple(notices), event=event)
        return await self._database.run(job, Mode.DURABLE)

    async def told(self, ids: Collection[int]) -> None:
        await self._database.run(partial(_told, ids=tuple(ids)), Mode.DURABLE)


def _remembered(connection: sqlite3.Connection) -> Remembered:
    conditions = connection.execute("SELECT subject, type, document FROM conditions").fetchall()
    waiting = connection.execute("SELECT id, channel, document FROM notices ORDER BY id").fetchall()
    place = connection.execute("SELECT event FROM place").fetchone()
    return Remembered(
        conditions={(subject, kind): json.loads(document) for subject, kind, document in conditions},
        waiting=tuple(WaitingNotice(channel, json.loads(document), id_) for id_, channel, document in waiting),
        event=place[0] if place else 0,
    )


def _keep(
    connection: sqlite3.Connection,
    changed: Documents,
    gone: Sequence[tuple[str, str]],
    notices: Sequence[WaitingNotice],
    event: int,
) -> Sequence[WaitingNotice]:
    connection.executemany("DELETE FROM conditions WHERE subject = ? AND type = ?", [(storable(a), b) for a, b in gone])
    connection.executemany(
        "INSERT OR REPLACE INTO conditions (subject, type, document) VALUES (?, ?, ?)",
        [(storable(subject), kind, json.dumps(document)) for (subject, kind), document in changed.items()],
    )
    connection.execute("INSERT OR REPLACE INTO place (one, event) VALUES (1, ?)", (event,))
    added = []
    for one in notices:
        row = connection.execute(
            "INSERT INTO notices (channel, document) VALUES (?, ?)", (one.channel, json.dumps(one.document))
        ).lastrowid
        assert row is not None
        added.append(WaitingNotice(one.channel, one.document, row))
    return tuple(added)


def _told(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    connection.executemany("DELETE FROM notices WHERE id = ?", [(one,) for one in ids])
