"""Backups of databases: made at intervals and when asked, kept, and written back (docs/mongodb.md).

An archive is ``<data>/mongodb/<team>/<name>/backups/<id>.tar.gz``; its id is when it was begun and why. One that is
there is whole: it is made aside and renamed. Intervals count from the newest one that was made at intervals, so that an
agent that was away makes one at once. Only such ones are removed again.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Final, NamedTuple

from agent.deployments import mongodb_dump as dumping
from agent.deployments.mongodb import Databases
from agent.deployments.mongodb_admin import AdminError, Client, Endpoint, login, standing, translated
from agent.deployments.mongodb_archive import (
    SUFFIX,
    BadArchive,
    Manifest,
    Reason,
    is_archive_id,
    opened,
    read_manifest,
    verify,
    write_archive,
)
from agent.deployments.mongodb_files import BACKUPS
from agent.deployments.mongodb_known import Database, Said
from agent.deployments.workload import Key
from schemas.deployment import MongoDBBackup
from schemas.mongodb_versions import series_of
from schemas.names import seconds

log = logging.getLogger(__name__)

_WORK: Final = ".work"
_LONG_MS: Final = 24 * 3600 * 1000
_RETRY: Final = 300.0
"""Seconds after a failed backup."""


class BackupError(Exception):
    """A backup or a restore cannot be done. The text is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Kept(NamedTuple):
    """An archive that is there. ``manifest`` is None where it cannot be read."""

    id: str
    path: Path
    bytes: int
    manifest: Manifest | None


class Backups:
    """``now``: POSIX seconds. ``look``: seconds between two looks at what is due."""

    def __init__(self, databases: Databases, *, now: Callable[[], float] = time.time, look: float = 5.0) -> None:
        self._databases = databases
        self._now = now
        self._look = look
        self._failed_at: dict[Key, float] = {}

    # --- what there is --------------------------------------------------------------------------------------------

    def folder(self, key: Key) -> Path:
        return self._databases.files.home(key) / BACKUPS

    def kept(self, key: Key) -> list[Kept]:
        """Return all archives of a database, oldest first; blocks."""
        paths = {name: self.folder(key) / f"{name}{SUFFIX}" for name in self._ids(key)}
        return [Kept(name, path, path.stat().st_size, _manifest(path)) for name, path in paths.items()]

    def _ids(self, key: Key) -> list[str]:
        names = (path.name.removesuffix(SUFFIX) for path in self.folder(key).glob(f"*{SUFFIX}"))
        return sorted(name for name in names if is_archive_id(name))

    def path_of(self, key: Key, archive: str) -> Path:
        """Return where an archive is. Raises BackupError."""
        path = self.folder(key) / f"{archive}{SUFFIX}"
        if not is_archive_id(archive) or not path.is_file():
            raise BackupError("NoArchive", f'There is no backup "{archive[:80]}" of {key} on this agent.')
        return path

    # --- making one -----------------------------------------------------------------------------------------------

    async def back_up(self, key: Key, reason: Reason = "asked") -> Kept:
        """Make one now. Raises BackupError."""
        database = self._wanted(key)
        backup = database.mongodb.backup or MongoDBBackup()
        try:
            async with database.busy, self._connected(key, database) as (where, client):
                return await self._make(key, where, client, reason, lock=backup.lock)
        except BaseException:
            database.greeted = ""  # where a lock was left, it is taken away at the next look
            raise

    async def _make(self, key: Key, where: Endpoint, client: Client, reason: Reason, *, lock: bool) -> Kept:
        began, folder = self._now(), self.folder(key)
        work = folder / _WORK
        await asyncio.to_thread(_fresh, work)
        try:
            told = await standing(where)
            async with dumping.still(client) if lock else nullcontext():
                found = await dumping.dump(client, work)
            manifest = Manifest(
                team=key.team,
                deployment=key.name,
                version=told.version,
                feature_version=told.feature_version,
                taken_at=began,
                reason=reason,
                consistent=lock,
                collections=found.collections,
            )
            name = await asyncio.to_thread(self._free_id, folder, began, reason)
            path = folder / f"{name}{SUFFIX}"
            await asyncio.to_thread(write_archive, path, manifest, found.parts)
        finally:
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
        log.info("database %s: backup %s, %d documents", key, name, manifest.documents)
        return Kept(name, path, path.stat().st_size, manifest)

    @staticmethod
    def _free_id(folder: Path, began: float, reason: str) -> str:
        stamp = dt.datetime.fromtimestamp(began, dt.UTC).strftime("%Y%m%dT%H%M%SZ")
        names = [f"{stamp}-{reason}", *(f"{stamp}-{reason}-{number}" for number in range(2, 1000))]
        return next(name for name in names if not (folder / f"{name}{SUFFIX}").exists())

    # --- writing one back -----------------------------------------------------------------------------------------

    async def restore(
        self, key: Key, path: Path, *, replace: bool, told: Callable[[str], None] = lambda _line: None
    ) -> Manifest:
        """Write an archive, of whatever database, into this one.

        A database that has data keeps it unless ``replace``; then a backup of it is made first.

        Raises:
            BackupError
        """
        database = self._wanted(key)
        try:
            manifest = await asyncio.to_thread(verify, path)
        except (BadArchive, OSError) as error:
            raise BackupError("BadArchive", _text(error)) from None
        async with database.busy, self._connected(key, database) as (where, client):
            await self._may_take(key, where, client, manifest, replace=replace)
            if not await dumping.is_empty(client):
                kept = await self._make(key, where, client, "replaced", lock=True)
                told(f"What was there is kept as {kept.id}.\n")
                await dumping.clear(client)
            with opened(path) as reader:
                await dumping.Loader(client, told).load(reader)
        log.info("database %s: restored from %s", key, path.name)
        return manifest

    @staticmethod
    async def _may_take(key: Key, where: Endpoint, client: Client, manifest: Manifest, *, replace: bool) -> None:
        here = await standing(where)
        if series_of(manifest.version) > series_of(here.version):
            text = f"The backup is of MongoDB {manifest.version}, and {key} runs {here.version}."
            raise BackupError("NewerVersion", f"{text} Restore it into a database of that release.")
        if not replace and not await dumping.is_empty(client):
            text = f"{key} has data, which stays. Say that it is to be replaced, or restore into a new deployment."
            raise BackupError("NotEmpty", text)

    # --- at intervals ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Make what is due, for ever."""
        begun: dict[Key, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:  # nobody waits for one that takes long or hangs
            while True:
                for key, database in list(self._databases.databases.items()):
                    wanted, known = database.mongodb.backup, begun.get(key)
                    if wanted is not None and database.ready and (known is None or known.done()):
                        begun[key] = tasks.create_task(self._keep_up(key, database, wanted), name=f"backup-{key}")
                await asyncio.sleep(self._look)

    async def _keep_up(self, key: Key, database: Database, wanted: MongoDBBackup) -> None:
        try:
            if not await self._is_due(key, wanted):
                return
            await self.back_up(key, "scheduled")
            await asyncio.to_thread(self._thin_out, key, wanted.keep)
        except (BackupError, OSError) as error:
            self._failed(key, database, _text(error))
        except Exception as error:
            log.exception("backup of database %s", key)
            self._failed(key, database, f"the agent failed with {type(error).__name__}; its log says more.")
        else:
            self._failed_at.pop(key, None)
            if database.backup_trouble is not None:
                database.backup_trouble = None
                self._databases.on_change()

    async def _is_due(self, key: Key, wanted: MongoDBBackup) -> bool:
        kept = await asyncio.to_thread(self._scheduled, key)
        newest = max(map(_begun, kept), default=float("-inf"))
        failed = self._failed_at.get(key, float("-inf"))
        return self._now() >= max(newest + seconds(wanted.every), failed + _RETRY)

    def _scheduled(self, key: Key) -> list[str]:
        return [name for name in self._ids(key) if name[17:].startswith("scheduled")]

    def _thin_out(self, key: Key, keep: int) -> None:
        for name in self._scheduled(key)[:-keep]:
            (self.folder(key) / f"{name}{SUFFIX}").unlink(missing_ok=True)

    def _failed(self, key: Key, database: Database, text: str) -> None:
        self._failed_at[key] = self._now()
        database.backup_trouble = Said("BackupFailed", f"The backup was not made: {text}")
        log.warning("database %s: the backup was not made: %s", key, text)
        self._databases.on_change()

    # --- the parts of it ------------------------------------------------------------------------------------------

    def _wanted(self, key: Key) -> Database:
        database = self._databases.databases.get(key)
        if database is None:
            raise BackupError("NotFound", f"There is no database {key} on this agent.")
        return database

    @asynccontextmanager
    async def _connected(self, key: Key, database: Database) -> AsyncIterator[tuple[Endpoint, Client]]:
        """Be logged in, with time for long answers. Lets out BackupError alone."""
        where = None if database.instance is None else self._databases.endpoint(key, database.instance)
        if where is None or not database.ready:
            raise BackupError("NotRunning", f"{key} does not run just now.")
        try:
            async with translated(), login(where, socket_ms=_LONG_MS) as client:
                yield where, client
        except AdminError as error:
            raise BackupError(error.reason, error.message) from None
        except BadArchive as error:
            raise BackupError("BadArchive", _text(error)) from None
        except OSError as error:
            raise BackupError("DiskRefused", f"The disk of the agent refused it: {error.strerror}.") from None


def _fresh(work: Path) -> None:
    """Make room to work in; what one that was cut off has left behind goes."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700, parents=True)
    for part in work.parent.glob(".*.part"):
        part.unlink(missing_ok=True)


def _begun(archive: str) -> float:
    return dt.datetime.strptime(archive[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC).timestamp()


def _manifest(path: Path) -> Manifest | None:
    try:
        return read_manifest(path)
    except (BadArchive, OSError):
        return None


def _text(error: Exception) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
