"""What was told to a forge and what still has to be, in ``forges.db``. Without it the forge is asked what it shows."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from reconciler.store.engine import Database, Mode
from reconciler.store.schema import FORGES_SCHEMA
from reconciler.store.tables.text import storable


@dataclass(frozen=True, slots=True)
class Shown:
    """What the forge shows for a commit. ``is_sure``: it has said so; else the post was begun."""

    revision: str
    state: str
    description: str
    url: str
    at: float
    is_sure: bool


@dataclass(frozen=True, slots=True)
class Proposed:
    """A branch that still needs its pull request."""

    branch: str
    base: str
    title: str
    body: str
    at: float


class ShownStore(Protocol):
    async def shown(self, limit: int) -> Sequence[Shown]:
        """Newest first."""
        ...

    async def save_shown(self, shown: Shown, *, keep: int) -> None:
        """Durable; replaces what was known of the commit, and forgets all but the newest ``keep``."""
        ...


class ProposedStore(Protocol):
    async def proposed(self, limit: int) -> Sequence[Proposed]:
        """Oldest first."""
        ...

    async def save_proposed(self, proposed: Proposed, *, keep: int) -> None:
        """Durable; replaces that of the branch, and forgets all but the newest ``keep``."""
        ...

    async def forget_proposed(self, branch: str) -> None: ...


class ForgeStore:
    """Open with :meth:`open`, close with :meth:`close`; both protocols in between. Raises Transient and Broken."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(directory, FORGES_SCHEMA, clock=clock)

    @property
    def notices(self) -> Sequence[str]:
        """Sentences about a file that had to be replaced, for the timeline."""
        return self._database.notices

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def shown(self, limit: int) -> Sequence[Shown]:
        return await self._database.run(partial(_shown, limit=limit))

    async def save_shown(self, shown: Shown, *, keep: int) -> None:
        await self._database.run(partial(_save_shown, shown=shown, keep=keep), Mode.DURABLE)

    async def proposed(self, limit: int) -> Sequence[Proposed]:
        return await self._database.run(partial(_proposed, limit=limit))

    async def save_proposed(self, proposed: Proposed, *, keep: int) -> None:
        await self._database.run(partial(_save_proposed, proposed=proposed, keep=keep), Mode.DURABLE)

    async def forget_proposed(self, branch: str) -> None:
        await self._database.run(partial(_forget_proposed, branch=branch), Mode.WRITE)


_OLD: Final = "rowid NOT IN (SELECT rowid FROM {table} ORDER BY at DESC, rowid DESC LIMIT ?)"


def _shown(connection: sqlite3.Connection, limit: int) -> Sequence[Shown]:
    rows = connection.execute(
        "SELECT revision, state, description, url, at, sure FROM shown ORDER BY at DESC, rowid DESC LIMIT ?", (limit,)
    )
    return tuple(Shown(row[0], row[1], row[2], row[3], row[4], bool(row[5])) for row in rows.fetchall())


def _save_shown(connection: sqlite3.Connection, shown: Shown, keep: int) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO shown (revision, state, description, url, at, sure) VALUES (?, ?, ?, ?, ?, ?)",
        (shown.revision, shown.state, storable(shown.description), shown.url, shown.at, shown.is_sure),
    )
    connection.execute(f"DELETE FROM shown WHERE {_OLD.format(table='shown')}", (keep,))  # noqa: S608


def _proposed(connection: sqlite3.Connection, limit: int) -> Sequence[Proposed]:
    rows = connection.execute("SELECT branch, base, title, body, at FROM proposed ORDER BY at, rowid LIMIT ?", (limit,))
    return tuple(Proposed(*row) for row in rows.fetchall())


def _save_proposed(connection: sqlite3.Connection, proposed: Proposed, keep: int) -> None:
    texts = (proposed.branch, proposed.base, proposed.title, proposed.body)
    connection.execute(
        "INSERT OR REPLACE INTO proposed (branch, base, title, body, at) VALUES (?, ?, ?, ?, ?)",
        (*map(storable, texts), proposed.at),
    )
    connection.execute(f"DELETE FROM proposed WHERE {_OLD.format(table='proposed')}", (keep,))  # noqa: S608


def _forget_proposed(connection: sqlite3.Connection, branch: str) -> None:
    connection.execute("DELETE FROM proposed WHERE branch = ?", (branch,))
