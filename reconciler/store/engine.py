"""One SQLite file and the one thread that touches it.

1. A caller hands in a job (a function of the connection) and awaits its result; the event loop never blocks.
2. The thread takes all jobs that wait and runs them in one transaction, each in a savepoint of its own.
3. It commits: with one fsync when any of them wants to be durable, without otherwise (WAL, synchronous=NORMAL).
4. It makes sure that the file it wrote to still is the file of that name; if not, it copies the rows into a new one.
5. Only then are the callers answered. A commit that fails is told to every caller in it.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from reconciler.errors import Broken, CloudLunacyError, Transient
from reconciler.store.file import DatabaseFile
from reconciler.store.salvage import says_damaged
from reconciler.store.schema import Schema

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]
log = logging.getLogger(__name__)

MAX_BATCH: Final = 256
"""Jobs in one transaction; bounds how long the first of them waits."""
RETRY_AFTER: Final = 1.0

ENDS_THE_BATCH: Final = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    )
)
"""Primary result codes after which the transaction is gone or the connection in doubt, whichever job met them."""


class Mode(enum.Enum):
    """What a job does to the file."""

    READ = enum.auto()
    WRITE = enum.auto()
    """May be lost in a power failure, not when the process is killed."""
    DURABLE = enum.auto()


class Waiting(NamedTuple):
    job: Job[Any]
    mode: Mode
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class Outcome(NamedTuple):
    value: Any
    error: BaseException | None


class Database:
    """A database file with its thread. ``open`` and ``close`` once each, ``run`` in between from any event loop."""

    def __init__(self, directory: Path, schema: Schema, *, clock: Callable[[], float] = time.time) -> None:
        self._file = DatabaseFile(directory / schema.file, schema, clock=clock)
        self._waiting: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"cloudlunacy-{schema.file}", daemon=True)
        self._closing = threading.Event()
        self.transactions = 0
        """Transactions committed so far, for tests and metrics."""

    @property
    def notices(self) -> Sequence[str]:
        """What a person should know about the file: one sentence for each time that it was replaced."""
        return tuple(self._file.notices)

    async def open(self) -> None:
        """Open, check and migrate the file. Raises Broken or Transient."""
        self._thread.start()
        try:
            await self.run(lambda _: None)
        except CloudLunacyError:
            await self.close()
            raise

    async def run(self, job: Job[T], mode: Mode = Mode.READ) -> T:
        """Run ``job`` in the thread and return what it returns once it is committed.

        Raises what the job raises, Transient (busy, disk full) or Broken (read-only, damaged).
        """
        if self._closing.is_set():
            raise Transient(f"{self._file.path.name} is closed.", reason="StoreClosed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.put(Waiting(job, mode, future, loop))
        return await future

    async def close(self) -> None:
        """Finish the jobs that wait, and close the file."""
        if not self._closing.is_set():
            self._closing.set()
            self._waiting.put(None)
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    # --- in the thread ---

    def _work(self) -> None:
        last = False
        while not last:
            batch, last = self._next_batch()
            if batch:
                _deliver(batch, self._outcomes(batch))
        self._file.close()

    def _next_batch(self) -> tuple[list[Waiting], bool]:
        """Wait for one job, then take those that have come in meanwhile. The flag says that it is the last batch."""
        batch: list[Waiting] = []
        entry = self._waiting.get()
        while entry is not None:
            batch.append(entry)
            if len(batch) == MAX_BATCH:
                return batch, False
            try:
                entry = self._waiting.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _outcomes(self, batch: Sequence[Waiting]) -> list[Outcome]:
        try:
            return self._transaction(batch)
        except sqlite3.Error as error:
            failure = self._failure(error)
        except CloudLunacyError as error:
            failure = error
        except OSError as error:
            failure = _os_failure(error, self._file.path)
        return [Outcome(None, failure) for _ in batch]

    def _transaction(self, batch: Sequence[Waiting]) -> list[Outcome]:
        connection = self._file.connection()
        durable = any(entry.mode is Mode.DURABLE for entry in batch)
        writing = durable or any(entry.mode is Mode.WRITE for entry in batch)
        self._file.synchronous(full=durable)
        connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
        try:
            outcomes = [_in_savepoint(connection, entry) for entry in batch]
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        if writing:
            self.transactions += 1
            self._file.restore_if_moved()
        return outcomes

    def _failure(self, error: sqlite3.Error) -> CloudLunacyError:
        """Say what the error means, and leave the file so that the next batch can go on if anything can."""
        path = self._file.path
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if says_damaged(error):
            return self._file.damaged_while_open()
        if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            # After a failed fsync the kernel may have dropped what was written: only a new look at the file is sure.
            self._file.close()
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
            return Transient(
                f"{path.name} is locked by another program.",
                reason="StoreBusy",
                retry_after=RETRY_AFTER,
                hint=f"Close whatever else has {path} open.",
            )
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM):
            return Transient(
                f"{path.name} cannot be written: {error}.",
                reason="DiskFull" if code == sqlite3.SQLITE_FULL else "StoreUnavailable",
                retry_after=RETRY_AFTER,
                hint=f"Look at the free space and the health of the disk under {path.parent}.",
            )
        return Broken(
            f"{path.name} cannot be used: {error}.",
            hint=f"This user must be able to read and write {path} and {path.parent}.",
        )


def _in_savepoint(connection: sqlite3.Connection, entry: Waiting) -> Outcome:
    """Run one job; its own failure undoes its own changes and nobody else's."""
    if entry.mode is Mode.READ:
        return _attempt(connection, entry.job)
    connection.execute("SAVEPOINT job")
    outcome = _attempt(connection, entry.job)
    if outcome.error is not None:
        connection.execute("ROLLBACK TO job")
    connection.execute("RELEASE job")
    return outcome


def _attempt(connection: sqlite3.Connection, job: Job[Any]) -> Outcome:
    try:
        return Outcome(job(connection), None)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in ENDS_THE_BATCH:
            raise
        return Outcome(None, error)
    except Exception as error:  # noqa: BLE001 - it is raised again where the job was handed in
        return Outcome(None, error)


def _os_failure(error: OSError, path: Path) -> CloudLunacyError:
    return Broken(
        f"{path} cannot be used: {error.strerror or error}.", hint="The data directory must be there and writable."
    )


def _deliver(batch: Sequence[Waiting], outcomes: Sequence[Outcome]) -> None:
    """Answer the callers, with one wake-up for each event loop among them."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Outcome]]] = {}
    for entry, outcome in zip(batch, outcomes, strict=True):
        by_loop.setdefault(entry.loop, []).append((entry.future, outcome))
    for loop, answers in by_loop.items():
        try:
            loop.call_soon_threadsafe(_answer, answers)
        except RuntimeError:
            log.debug("an event loop ended before %d of its calls were answered", len(answers))


def _answer(answers: Sequence[tuple[asyncio.Future[Any], Outcome]]) -> None:
    for future, (value, error) in answers:
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
