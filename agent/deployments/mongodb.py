"""Databases: deployments of type mongodb, which a lower driver runs and this looks after.

```
lowered    what the driver shall run (agent.deployments.mongodb_workload); a version that may not have the data is not
           let to it, the one before runs on
prepare    before an instance is made: password of the agent's user, certificate and directories are there
probe      the health check: through TLS, as the agent's user
tend       again and again: certificate, users, version, size; each only where it is not as wanted
result     what is said beside what the roll-out says
```

The agent's own user is the only thing that has to be remembered for a database (agent.deployments.mongodb_files). All
else is asked of it, so that an agent that starts anew, or died in between, finds what is left to do.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Final

from agent.deployments import mongodb_admin as admin
from agent.deployments.actions import Directory
from agent.deployments.driver import DriverError
from agent.deployments.given import NOTHING, Given
from agent.deployments.health import Probe
from agent.deployments.mongodb_admin import AdminError, Endpoint
from agent.deployments.mongodb_files import DatabaseFiles, Record, new_password
from agent.deployments.mongodb_known import Database, Said, start_of
from agent.deployments.mongodb_users import wanted_users
from agent.deployments.mongodb_workload import Runtime, directories, lowered, port_of, socket_name
from agent.deployments.observed import Instance, Observed
from agent.deployments.standby import Standby
from agent.deployments.workload import Key, Workload
from agent.service_files import HeldService
from schemas.deployment import MongoDB
from schemas.mongodb_versions import refusal, series_of
from schemas.names import size_in_bytes
from schemas.session import ItemResult

log = logging.getLogger(__name__)

TYPE: Final = "mongodb"


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Times are in seconds."""

    look: float = 5.0
    """Between two looks at a database."""
    ask: float = 60.0
    """Between two questions for users, version and size."""


class Databases:
    """All databases of this agent. ``runtimes``: drivers that it has.

    ``able``: whether the machine has what a runtime takes for a version; else its driver says what is missing.
    """

    type = TYPE

    def __init__(
        self,
        files: DatabaseFiles,
        runtimes: Sequence[Runtime],
        *,
        held: Callable[[str, str], HeldService | None],
        secrets: Callable[[Workload], Given] = lambda _workload: NOTHING,
        mongod: Callable[[str], str] = lambda _version: "mongod",
        able: Callable[[Runtime, str], bool] = lambda _runtime, _version: True,
        settings: DatabaseSettings = DatabaseSettings(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.files = files
        self.on_change: Callable[[], None] = lambda: None
        self.records: dict[Key, Record] = files.load()
        self.databases: dict[Key, Database] = {}
        self.capabilities: frozenset[str] = frozenset()
        """What the agent is for, as its file says; a new database runs as the first of ``runtimes`` that is able."""
        self._runtimes = tuple(runtimes)
        self._held = held
        self._secrets = secrets
        self._mongod = mongod
        self._able = able
        self._settings = settings
        self._monotonic = monotonic
        self._wake = asyncio.Event()
        self._noting = threading.Lock()

    # --- what a driver shall run ----------------------------------------------------------------------------------

    def lowered(self, workload: Workload) -> Workload | Standby:
        """Return what is to run in place of a deployment of this type."""
        key = workload.key
        database = self.databases.setdefault(key, Database(workload))
        if database.workload != workload:
            database.workload, database.trouble = workload, None
            self._wake.set()
        wanted, record = database.mongodb, self.records.get(key)
        begun = record if record is not None and record.begun else None
        runtime = self._runtime(wanted, begun)
        if runtime not in self._runtimes:
            return Standby("Failed", "Unsupported", f"This agent runs nothing of type {runtime}.")
        if self._held(*key) is None and record is None:
            return Standby("Progressing", "WaitingForCertificate", "Its certificate has not come yet.")
        version, image = wanted.version, wanted.image
        database.refused = None if begun is None else self._refused(wanted, begun)
        if database.refused is not None and begun is not None:
            version, image = begun.version, begun.image
        mongod = self._mongod(version) if runtime == "process" else "mongod"
        database.made = lowered(workload, runtime, version=version, image=image, mongod=mongod)
        return database.made

    def _runtime(self, wanted: MongoDB, begun: Record | None) -> Runtime:
        if begun is not None:
            return begun.runtime  # where its data is
        named = [one for one in self._runtimes if one in self.capabilities]
        can = (one for one in named if self._able(one, wanted.version))
        return wanted.runtime or (*can, *named, *reversed(self._runtimes), "process")[0]

    @staticmethod
    def _refused(wanted: MongoDB, begun: Record) -> Said | None:
        found = refusal(begun.feature_version, wanted.version)
        if found is not None:
            return Said("UpgradeRefused", f"{found.text} Version {begun.ran} runs on. {found.hint}")
        if wanted.runtime not in (None, begun.runtime):
            text = f"Its data is where it runs as {begun.runtime}, and there it stays. Restore a backup elsewhere."
            return Said("RuntimeKept", text)
        return None

    def keep(self, keys: AbstractSet[Key]) -> None:
        """Look after no others than these."""
        for key in self.databases.keys() - keys:
            del self.databases[key]

    # --- what a driver asks ---------------------------------------------------------------------------------------

    def seen(self, runtime: str, observed: Observed) -> None:
        """Take note of what runs."""
        for key, database in self.databases.items():
            if database.made is None or database.made.spec.type != runtime:
                continue
            running = [one for one in observed.of(key) if one.state == "running" and one.address]
            before, database.instance = database.start, max(running, key=lambda one: one.started, default=None)
            if database.start != before:
                self._wake.set()

    def is_database(self, key: Key) -> bool:
        return key in self.databases

    def prepare(self, key: Key) -> tuple[Directory, ...]:
        """Have everything that mongod needs to begin; blocks. Raises DriverError, OSError."""
        held, database = self._held(*key), self.databases[key]
        made = database.made
        assert made is not None, "an instance is made of it"
        record = self.records.get(key)
        if record is None or not record.begun:
            runtime: Runtime = "container" if made.spec.type == "container" else "process"
            fresh = Record(runtime, database.mongodb.version, database.mongodb.image, new_password())
            self._note(key, lambda former: replace(fresh, password=former.password), fresh)
        if held is not None:
            self.files.put_certificate(key, held.directory)
        elif not self.files.roots(key).exists():
            raise DriverError("WaitingForCertificate", "Its certificate has not come yet.", retryable=True)
        return directories(PurePosixPath(self.files.home(key)))

    def _note(self, key: Key, change: Callable[[Record], Record], fresh: Record | None = None) -> None:
        """Keep another record, of one that is gone none; blocks. Raises OSError, and then what was kept stays."""
        with self._noting:
            former = self.records.get(key, fresh)
            if former is not None and (record := change(former)) != self.records.get(key):
                self.files.save(key, record)
                self.records[key] = record

    def gone(self, key: Key) -> None:
        """Its data was deleted; blocks."""
        with self._noting:
            self.files.forget(key)
            self.records.pop(key, None)

    async def probe(self, instance: Instance, timeout_seconds: float) -> Probe:
        """Say how an instance is."""
        where = self.endpoint(instance.key, instance)
        if where is None:
            return Probe(False, "what is kept of it cannot be read")
        try:
            async with asyncio.timeout(timeout_seconds):
                database = self.databases.get(instance.key)
                if database is not None and database.greeted != start_of(instance):
                    await admin.ensure_admin(where)
                    self._wake.set()  # now somebody can log in
                await admin.ping(where)
        except TimeoutError:
            return Probe(False, f"mongod did not answer within {timeout_seconds:g} s")
        except AdminError as error:
            return Probe(False, error.message)
        return Probe(True)

    def endpoint(self, key: Key, instance: Instance) -> Endpoint | None:
        """Return where an instance is reached, and as whom."""
        record, database = self.records.get(key), self.databases.get(key)
        if record is None or database is None or database.made is None:
            return None
        spec = database.made.spec
        socket = self.files.socket(key, socket_name(spec))
        return Endpoint(instance.address, port_of(spec), self.files.roots(key), socket, record.password)

    # --- looking after them ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look after all of them, for ever."""
        async with asyncio.TaskGroup() as tasks:  # nobody waits for one that takes long or hangs
            while True:
                self._wake.clear()
                for key in list(self.databases):
                    tasks.create_task(self._tend(key), name=f"database-{key}")
                try:
                    async with asyncio.timeout(self._settings.look):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _tend(self, key: Key) -> None:
        database = self.databases.get(key)
        if database is None or database.instance is None:
            return
        if database.busy.locked():
            database.again = True
            return
        where = self.endpoint(key, database.instance)
        if where is None:
            return
        before, database.again = self._shown(database), False
        async with database.busy:
            try:
                await self._greet(key, database, where)
                await self._certificate(key, database, where)
                await self._users(database, where)
                await self._version(key, database, where)
                database.trouble = None
            except AdminError as error:
                # that nobody answers is what the health check is for
                database.trouble = None if error.reason == "Unreachable" else Said(error.reason, error.message)
            except DriverError as error:
                database.trouble = Said(error.reason, error.message)
            except OSError as error:
                database.trouble = Said("NotPersisted", f"The disk of the agent refused it: {error.strerror}.")
            except Exception as error:
                log.exception("database %s", key)
                database.trouble = Said(
                    "AgentFailed", f"The agent failed with {type(error).__name__}; its log says more."
                )
        if self._shown(database) != before:
            self.on_change()
        if database.again:
            self._wake.set()

    @staticmethod
    def _shown(database: Database) -> object:
        return database.trouble, database.users, database.standing, database.refused

    async def _greet(self, key: Key, database: Database, where: Endpoint) -> None:
        """Be the first in it. What data it is has to be known before users are there who could write some."""
        start = database.start
        if database.greeted == start:
            return
        await admin.ensure_admin(where)
        if await admin.unlock(where):
            log.warning("database %s was still locked by a backup that was cut off", key)
        if not self.records[key].begun:
            found = await admin.standing(where)
            seen = partial(replace, feature_version=found.feature_version, ran=found.version)
            await asyncio.to_thread(self._note, key, seen)
        database.greeted, database.asked_at = start, float("-inf")
        database.shown = ""

    async def _certificate(self, key: Key, database: Database, where: Endpoint) -> None:
        held = self._held(*key)
        if held is None or database.shown == held.fingerprint:
            return
        changed = await asyncio.to_thread(self.files.put_certificate, key, held.directory)
        if changed or not database.shown:
            # an agent that died between the two would not know, so a new one tells once more than it must
            await admin.rotate_certificates(where)
        database.shown = held.fingerprint

    async def _users(self, database: Database, where: Endpoint) -> None:
        workload = database.workload
        given = self._secrets(workload)
        missing = given.missing(workload.spec)
        if missing:
            raise AdminError(
                "SecretsMissing", f"The control plane has not sent the values of {', '.join(missing)} yet."
            )
        wanted = wanted_users(database.mongodb.users, lambda user: given.value(user.password))
        done = f"{database.start} {hash(wanted)}"
        if database.users == done and not self._is_time(database):
            return
        changed = await admin.set_users(where, wanted)
        if changed:
            log.info("database %s: %d users were made, changed or removed", workload.key, changed)
        database.users = done

    async def _version(self, key: Key, database: Database, where: Endpoint) -> None:
        """Ask what there is, and let the data follow a version that was found good."""
        instance, made = database.instance, database.made
        taken = database.mongodb if database.refused is None else None  # something else may be wanted meanwhile
        if not self._is_time(database) and not self._behind(database):
            return
        found = await admin.standing(where)
        good = instance is not None and instance.kept and made is not None and instance.digest == made.digest
        if good and series_of(found.feature_version) < series_of(found.version):
            log.info("database %s: its data becomes one of %s", key, found.version)
            await admin.raise_feature_version(where, found.version)
            found = await admin.standing(where)
        database.standing, database.asked_at = found, self._monotonic()
        let = taken if good and taken is not None else self.records[key]
        known = partial(replace, version=let.version, image=let.image, address=where.host, port=where.port)
        seen = partial(known, feature_version=found.feature_version, ran=found.version)
        await asyncio.to_thread(self._note, key, seen)

    def _is_time(self, database: Database) -> bool:
        return self._monotonic() >= database.asked_at + self._settings.ask

    @staticmethod
    def _behind(database: Database) -> bool:
        found = database.standing
        kept = database.instance is not None and database.instance.kept
        return found is None or (kept and series_of(found.feature_version) < series_of(found.version))

    # --- how they stand -------------------------------------------------------------------------------------------

    def result(self, key: Key, said: ItemResult) -> ItemResult:
        """Return what is said of a database, where its roll-out says ``said``."""
        database = self.databases.get(key)
        if database is None:
            return said
        if said.reason == "Exited" and f"exited with {_NEEDS_OTHER_VERSION}" in said.message:
            return said.model_copy(update={"reason": "UpgradeRefused"})
        if (said.state, said.reason) != ("Applied", "Running"):
            return said
        if database.refused is not None:
            return _failed(said, database.refused)
        if database.trouble is not None:
            return _failed(said, database.trouble)
        if not database.users.startswith(database.start) or not database.start:
            return said.model_copy(update={"state": "Progressing", "reason": "CreatingUsers"})
        if database.backup_trouble is not None and database.mongodb.backup is not None:
            return said.model_copy(update=database.backup_trouble._asdict())
        limit, found = database.mongodb.storage, database.standing
        if limit is not None and found is not None and found.bytes > size_in_bytes(limit):
            text = f"It takes {found.bytes / 2**20:.0f} MiB of the disk, and {limit} were expected."
            return said.model_copy(update={"reason": "StorageExceeded", "message": text})
        return said


_NEEDS_OTHER_VERSION: Final = 62
"""Exit code of a mongod that may not open the data (MongoDB's manual, "Exit Codes and Statuses")."""


def _failed(said: ItemResult, why: Said) -> ItemResult:
    return said.model_copy(update={"state": "Failed", "reason": why.reason, "message": why.message})
