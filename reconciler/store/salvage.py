"""What is done with a database file that is damaged: tell, set aside, read out what can still be read."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from reconciler.errors import Broken
from reconciler.store.schema import Schema, migrate

SIDE_FILES: Final = ("", "-wal", "-shm")
KEPT_ASIDE: Final = 3
"""Damaged copies of a disposable database that are kept; older ones go, so that a bad disk does not fill another."""
PROBED_ROWS: Final = 1_000_000
"""Row ids looked up one by one behind a damaged page; the walk from both ends finds the rest."""


def is_damaged(connection: sqlite3.Connection) -> bool:
    """Read the whole file and say whether SQLite finds its structure broken (``PRAGMA quick_check``)."""
    try:
        return bool(connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
    except sqlite3.DatabaseError as error:
        if says_damaged(error):
            return True
        raise


def says_damaged(error: sqlite3.Error) -> bool:
    """Whether the error means that the file itself is not a sound database."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def set_aside(path: Path, now: float) -> Path:
    """Rename a database with its side files to ``<name>.corrupt-<UTC time>`` and return the new path."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    target = path.with_name(f"{path.name}.corrupt-{stamp}")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.corrupt-{stamp}-{number}")
    for suffix in SIDE_FILES:
        with contextlib.suppress(FileNotFoundError):
            _beside(path, suffix).rename(_beside(target, suffix))
    sync_directory(path.parent)
    return target


def forget_oldest_aside(path: Path) -> None:
    """Keep only the newest few damaged copies of ``path``."""
    names = sorted(
        {p.name.removesuffix("-wal").removesuffix("-shm") for p in path.parent.glob(f"{path.name}.corrupt-*")}
    )
    for name in names[:-KEPT_ASIDE]:
        for suffix in SIDE_FILES:
            _beside(path.with_name(name), suffix).unlink(missing_ok=True)


def salvaged_path(path: Path) -> Path:
    """Name the file that waits for a person to accept it in the place of ``path``."""
    return path.with_name(f"{path.name}.salvaged")


def salvage(damaged: Path, target: Path, schema: Schema) -> dict[str, int]:
    """Copy every readable row of ``damaged`` into a new database ``target``; return the number of rows by table.

    The new file is whole and on disk, or not there at all.
    """
    unfinished = target.with_name(f"{target.name}.new")
    remove(unfinished)
    new = create(unfinished, schema)
    with contextlib.closing(new), contextlib.closing(_open_damaged(damaged)) as old:
        tables = [name for (name,) in new.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()]
        new.execute("BEGIN IMMEDIATE")
        counts = {name: _copy(old, new, name) for name in tables if not name.startswith("sqlite_")}
        new.execute("COMMIT")
    replace_durably(unfinished, target)
    return counts


def refuse_unaccepted(path: Path) -> None:
    """Raise Broken while salvaged rows wait for a person: starting empty would lose what was acknowledged."""
    salvaged = salvaged_path(path)
    if salvaged.exists() and not path.exists():
        raise Broken(
            f"{path.name} was damaged; what could be read of it waits in {salvaged}.",
            hint=f"To go on with those rows: mv {salvaged} {path}",
        )


def create(path: Path, schema: Schema) -> sqlite3.Connection:
    """Make a new database, readable by its owner alone, with synchronous=FULL and in rollback-journal mode."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection, schema)
    except BaseException:
        connection.close()
        raise
    return connection


def remove(path: Path) -> None:
    """Remove a database with its side files."""
    for suffix in SIDE_FILES:
        _beside(path, suffix).unlink(missing_ok=True)


def replace_durably(source: Path, target: Path) -> None:
    """Rename over ``target``; the new name is on disk on return."""
    source.replace(target)
    sync_directory(target.parent)


def sync_directory(directory: Path) -> None:
    """Put the names of a directory on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _open_damaged(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    # Whatever can be read is wanted: no refusal because of a schema that looks odd, no order by a broken index.
    connection.execute("PRAGMA writable_schema = ON")
    connection.text_factory = bytes
    return connection


def _copy(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> int:
    columns = [row[1] for row in new.execute(f"PRAGMA table_info({table})").fetchall()]
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    count = 0
    for row in _readable_rows(old, table, names):
        with contextlib.suppress(UnicodeDecodeError, sqlite3.IntegrityError):
            values = [value.decode() if isinstance(value, bytes) else value for value in row]
            new.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", values)  # noqa: S608 - names from our schema
            count += 1
    return count


def _readable_rows(old: sqlite3.Connection, table: str, names: str) -> Iterator[tuple[Any, ...]]:
    """Walk from the first row on until damage, from the last one back until damage, and probe what lies between."""
    query = f"SELECT rowid, {names} FROM {table} NOT INDEXED"  # noqa: S608 - names from our schema
    low = 0
    for row in _until_damage(old, f"{query} WHERE rowid > 0 ORDER BY rowid", ()):
        low = row[0]
        yield row[1:]
    high = None
    for row in _until_damage(old, f"{query} WHERE rowid > ? ORDER BY rowid DESC", (low,)):
        high = row[0]
        yield row[1:]
    end = high if high is not None else low + 10_000
    for rowid in range(low + 1, min(end, low + PROBED_ROWS)):
        for row in _until_damage(old, f"{query} WHERE rowid = ?", (rowid,)):
            yield row[1:]


def _until_damage(old: sqlite3.Connection, query: str, values: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    try:
        yield from old.execute(query, values)
    except sqlite3.DatabaseError as error:
        if not (says_damaged(error) or "no such" in str(error)):
            raise
