"""The parse cache that survives restarts: what was made of (path, blob), and which of it is the last saved tree.

A cache: ``cache.db`` may be deleted at any time, a damaged one is replaced, and a disk that cannot be written costs
time and nothing else. So it never waits for the disk (synchronous=OFF) and keeps a CRC-32 of each row instead.

Blocking: call it in a worker thread. One thread at a time is let in.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from reconciler.store.salvage import remove, says_damaged

T = TypeVar("T")
Row = tuple[str, str, bytes]
"""(path, blob, document); the document is what was made of the blob at that path, the cache does not look into it."""

SCHEMA_VERSION: Final = 1
KEPT_GENERATIONS: Final = 100
"""Saved trees for which a row that has left the tree is kept: a revert finds it parsed."""
PAIRS_PER_QUERY: Final = 400
PAGE_SIZE: Final = 8192

SCHEMA: Final = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL,
    blob TEXT NOT NULL,
    crc INTEGER NOT NULL,
    gone_at INTEGER,
    document BLOB NOT NULL,
    UNIQUE (path, blob)
);
CREATE INDEX entries_gone ON entries (gone_at) WHERE gone_at IS NOT NULL;
"""
"""``gone_at`` is NULL for what is in the last saved tree, else the generation in which it left (or was stored)."""


class BlobCache:
    """``fingerprint`` names all that decides what a document looks like; a cache with another one is emptied."""

    def __init__(self, path: Path, fingerprint: str, *, kept_generations: int = KEPT_GENERATIONS) -> None:
        self._path = path
        self._fingerprint = f"{SCHEMA_VERSION}:{fingerprint}"
        self._kept = kept_generations
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self.replaced = 0
        """Times that the file was damaged and a new one was made."""
        self.failures = 0
        """Calls that gave up because of the disk."""
        self.last_failure = ""

    def load_tree(self) -> list[Row]:
        """Return (path, blob, document) of everything in the last saved tree, in no particular order."""
        return self._guarded(_load_tree, [])

    def lookup(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
        """Return the document of each (path, blob) that is known, in the tree or not."""
        return self._guarded(lambda connection: _lookup(connection, pairs), {})

    def store(self, rows: Iterable[Row]) -> None:
        """Remember rows without making them part of the tree."""
        kept = [row for row in rows if _storable(row[0])]
        self._guarded(lambda connection: _store(connection, kept), None)

    def replace(self, changed: Iterable[Row], removed: Iterable[str]) -> None:
        """Move the tree on: new contents of some paths, others gone. The cost grows with the change alone."""
        rows = [row for row in changed if _storable(row[0])]
        gone = [path for path in removed if _storable(path)]
        self._guarded(lambda connection: _replace(connection, rows, gone, self._kept), None)

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            self._close()

    def _guarded(self, action: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Run ``action`` in a transaction; replace the file once when it is damaged; give up on any other failure."""
        with self._lock:
            for attempt in range(2):
                try:
                    return self._transaction(action)
                except (sqlite3.Error, OSError) as error:
                    self._close()
                    if isinstance(error, sqlite3.Error) and says_damaged(error) and attempt == 0:
                        self.replaced += 1
                        self._remove()
                        continue
                    self.failures += 1
                    self.last_failure = f"{self._path.name}: {error}"
                    break
            return otherwise

    def _transaction(self, action: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            self._connection = self._open()
        connection = self._connection
        connection.execute("BEGIN")
        try:
            value = action(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return value

    def _open(self) -> sqlite3.Connection:
        connection = self._connect()
        try:
            if _is_ours(connection, self._fingerprint):
                return connection
            connection.close()
            self._remove()
            connection = self._connect()
            connection.executescript(SCHEMA)
            _set_about(connection, "fingerprint", self._fingerprint)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            remove(self._path)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _is_ours(connection: sqlite3.Connection, fingerprint: str) -> bool:
    try:
        return _about(connection, "fingerprint") == fingerprint
    except sqlite3.OperationalError:
        return False


def _about(connection: sqlite3.Connection, name: str) -> str:
    row = connection.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
    return "" if row is None else str(row[0])


def _set_about(connection: sqlite3.Connection, name: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO about (name, value) VALUES (?, ?)", (name, value))


def _load_tree(connection: sqlite3.Connection) -> list[Row]:
    rows = connection.execute("SELECT path, blob, document, crc FROM entries WHERE gone_at IS NULL").fetchall()
    return [_checked(*row) for row in rows]


def _lookup(connection: sqlite3.Connection, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    known = [pair for pair in pairs if _storable(pair[0])]
    found: dict[tuple[str, str], bytes] = {}
    for part in _parts(known):
        marks = ", ".join(["(?, ?)"] * len(part))
        rows = connection.execute(
            f"SELECT path, blob, document, crc FROM entries WHERE (path, blob) IN (VALUES {marks})",  # noqa: S608
            [value for pair in part for value in pair],
        )
        for row in rows:
            path, blob, document = _checked(*row)
            found[path, blob] = document
    return found


def _store(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    now = _generation(connection)
    connection.executemany(
        "INSERT INTO entries (path, blob, document, crc, gone_at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (path, blob) DO UPDATE SET document = excluded.document, crc = excluded.crc,"
        " gone_at = CASE WHEN gone_at IS NULL THEN NULL ELSE excluded.gone_at END",
        ((*row, _crc(*row), now) for row in rows),
    )


def _replace(connection: sqlite3.Connection, rows: Sequence[Row], removed: Sequence[str], kept: int) -> None:
    now = _generation(connection) + 1
    connection.executemany(
        "UPDATE entries SET gone_at = ? WHERE path = ? AND gone_at IS NULL",
        [(now, path) for path in (*removed, *(row[0] for row in rows))],
    )
    connection.executemany(
        "INSERT INTO entries (path, blob, document, crc) VALUES (?, ?, ?, ?) ON CONFLICT (path, blob)"
        " DO UPDATE SET document = excluded.document, crc = excluded.crc, gone_at = NULL",
        ((*row, _crc(*row)) for row in rows),
    )
    connection.execute("DELETE FROM entries WHERE gone_at <= ?", (now - kept,))
    _set_about(connection, "generation", str(now))


def _generation(connection: sqlite3.Connection) -> int:
    return int(_about(connection, "generation") or 0)


def _checked(path: str, blob: str, document: bytes, crc: int) -> Row:
    if crc != _crc(path, blob, document):
        error = sqlite3.DatabaseError(f"the row of {path!r} has changed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error
    return path, blob, document


def _crc(path: str, blob: str, document: bytes) -> int:
    return zlib.crc32(document, zlib.crc32(f"{path}\0{blob}".encode()))


def _storable(path: str) -> bool:
    """Whether the path is UTF-8; one that is not names no object, so nothing is lost by leaving it out."""
    return path.isascii() or path == path.encode("utf-8", "replace").decode()


def _parts(pairs: Sequence[tuple[str, str]]) -> Iterator[Sequence[tuple[str, str]]]:
    for start in range(0, len(pairs), PAIRS_PER_QUERY):
        yield pairs[start : start + PAIRS_PER_QUERY]
