"""A database file through its life: opened, checked, found damaged, found gone. Used by one thread at a time."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from reconciler.errors import Broken, CloudLunacyError, Transient
from reconciler.store import salvage
from reconciler.store.schema import Schema, migrate

log = logging.getLogger(__name__)

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another program that holds the file, such as a person's ``sqlite3`` shell."""
Identity = tuple[int, int]


class DatabaseFile:
    """Opens on demand: after ``close``, or when something went wrong, the next ``connection`` starts anew."""

    def __init__(self, path: Path, schema: Schema, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.notices: list[str] = []
        self._schema = schema
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[Identity, Identity] | None = None
        self._full: bool | None = None

    def connection(self) -> sqlite3.Connection:
        """Return the open connection (autocommit mode, WAL). Raises Broken, sqlite3.Error, OSError."""
        if self._connection is None:
            self._open()
        assert self._connection is not None
        return self._connection

    def synchronous(self, *, full: bool) -> None:
        """Choose whether the next commit waits for the disk."""
        if full is not self._full:
            self.connection().execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
            self._full = full

    def close(self) -> None:
        """Close the connection if there is one."""
        connection, self._connection, self._full = self._connection, None, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as error:
                log.warning("closing %s: %s", self.path.name, error)

    def restore_if_moved(self) -> None:
        """Where the file was deleted or replaced beneath us, write what we have back under its name.

        SQLite goes on writing to the nameless file; what is committed there would be lost with the process.
        """
        if self._identity_on_disk() == self._identity:
            return
        connection = self.connection()
        unfinished = self.path.with_name(f"{self.path.name}.new")
        salvage.remove(unfinished)
        copy = salvage.create(unfinished, self._schema)
        try:
            connection.backup(copy)
        finally:
            copy.close()
        self.close()
        salvage.remove(self.path)
        salvage.replace_durably(unfinished, self.path)
        self._notice(f"{self.path.name} was removed or replaced while in use; it was written again.")
        self._open()

    def damaged_while_open(self) -> CloudLunacyError:
        """Handle damage that shows while running; return what the callers are told."""
        self.close()
        if self._schema.disposable:
            self._replace()
            return Transient(
                f"{self.path.name} was damaged and is being rebuilt.", reason="StoreReplaced", retry_after=0.0
            )
        return Broken(
            f"{self.path.name} is damaged.",
            hint="Restart CloudLunacy: it reads out what can be read, and says how to go on.",
        )

    def _open(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._schema.disposable:
            salvage.refuse_unaccepted(self.path)
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            self.close()
            if not salvage.says_damaged(error):
                raise
            self._replace()
            self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        is_new = not self.path.exists()
        if is_new:
            self._create()
        # An empty file is a database to SQLite, but never one of ours: they are renamed into place when complete.
        elif self.path.stat().st_size == 0:
            raise _damaged(f"{self.path.name} is empty")
        uri = f"{self.path.resolve().as_uri()}?mode=rw"
        self._connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, timeout=BUSY_TIMEOUT, check_same_thread=False, cached_statements=256
        )
        self._connection.execute("PRAGMA trusted_schema = OFF")
        self._connection.execute("PRAGMA cell_size_check = ON")
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA journal_size_limit = 16777216")
        if not is_new and salvage.is_damaged(self._connection):
            raise _damaged(f"{self.path.name} is damaged")
        migrate(self._connection, self._schema)
        # Writes what is there already: a file that cannot be written is found out now, and the write-ahead log exists
        # when it is looked for below.
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(f"PRAGMA user_version = {len(self._schema.migrations):d}")
        self._connection.execute("COMMIT")
        self._identity = self._identity_on_disk()

    def _create(self) -> None:
        unfinished = self.path.with_name(f"{self.path.name}.new")
        salvage.remove(unfinished)
        if self.path.with_name(f"{self.path.name}-wal").exists():
            aside = salvage.set_aside(self.path, self._clock())
            self._notice(f"{self.path.name} was gone but its write-ahead log was not; that is now {aside}-wal.")
        salvage.create(unfinished, self._schema).close()
        salvage.replace_durably(unfinished, self.path)

    def _replace(self) -> None:
        aside = salvage.set_aside(self.path, self._clock())
        if self._schema.disposable:
            salvage.forget_oldest_aside(self.path)
            self._notice(f"{self.path.name} was damaged and is being rebuilt; the damaged file is {aside}.")
            return
        target = salvage.salvaged_path(self.path)
        rows = salvage.salvage(aside, target, self._schema)
        found = ", ".join(f"{count} of {table}" for table, count in rows.items())
        raise Broken(
            f"{self.path.name} was damaged. Rows that could be read: {found}."
            f" They are in {target}; the damaged file is {aside}.",
            hint=f"To go on with those rows: mv {target} {self.path}",
        )

    def _notice(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self.notices.append(sentence)

    def _identity_on_disk(self) -> tuple[Identity, Identity] | None:
        try:
            stats = self.path.stat(), self.path.with_name(f"{self.path.name}-wal").stat()
        except FileNotFoundError:
            return None
        return (stats[0].st_dev, stats[0].st_ino), (stats[1].st_dev, stats[1].st_ino)


def _damaged(message: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(message)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
