"""A database of an agent whose mongod is a process of the test: everything of the agent but the driver is real."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient

from agent.deployments.given import Given
from agent.deployments.mongodb import Databases, DatabaseSettings
from agent.deployments.mongodb_backups import Backups
from agent.deployments.mongodb_files import DatabaseFiles
from agent.deployments.mongodb_workload import Places, command_line
from agent.deployments.observed import Instance, Observed
from agent.deployments.workload import Key, Workload
from agent.keys import AgentKey
from agent.sealing import Sealer
from schemas.deployment import DeploymentSpec
from tests.support.mongod import forget_half_made_connections
from tests.support.orphans import tied
from tests.support.parts import require
from tests.support.ports import free_port
from tests.support.service_world import World, item, make_issuer
from tests.support.waiting import eventually

KEY = Key("shop", "orders")
CERTIFICATE_SECONDS = 500.0
PASSWORD = "p@ss/w:rd?#[%]é"  # every character that has a meaning in a URI
USERS = ({"name": "shop", "database": "shop", "password": {"name": "orders", "key": "password"}},)


class DatabaseProcess:
    """``program``: the mongod that is started next. ``now`` is what backups go by."""

    def __init__(self, folder: Path, *, program: Path | None = None, environment: dict[str, str] | None = None) -> None:
        self.data = folder / "data"
        self.data.mkdir(mode=0o700, parents=True)
        self.program = program or require("mongod")
        self.environment = environment
        self.port = free_port()
        self.now = time.time()
        self.passwords = {"orders/password": PASSWORD}
        self.users: tuple[Any, ...] = USERS
        self.more: dict[str, Any] = {}
        self.version = "6.0"
        issuer = make_issuer(folder / "keys", self.now)
        issuer._lifetime = lambda _: CERTIFICATE_SECONDS
        self.world = World(self.data, issuer)
        self.world.now = self.now
        self.world.issue(item())
        self._key = AgentKey.load_or_create(self.data).private
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self.restart_agent()

    def restart_agent(self) -> None:
        """As after SIGKILL: only the disk is left."""
        files = DatabaseFiles(self.data, Sealer(self._key))
        self.databases = Databases(
            files,
            ["process"],
            held=self.world.service.held,
            secrets=lambda _: Given(dict(self.passwords)),
            settings=DatabaseSettings(look=0.1, ask=0.1),
        )
        self.backups = Backups(self.databases, now=lambda: self.now, look=0.1)

    @property
    def workload(self) -> Workload:
        mongodb = {"version": self.version, "users": self.users, **self.more}
        ports = [{"container": 27017, "host": self.port}]
        spec = {"type": "mongodb", "agents": ["vps-1"], "mongodb": mongodb, "ports": ports}
        return Workload(KEY, DeploymentSpec.model_validate(spec))

    def renew(self) -> None:
        """Another certificate comes."""
        self.world.connect()
        self.world.step(CERTIFICATE_SECONDS / 2)
        self.world.answer(item())

    def want(self) -> Workload:
        """Take what is wanted by now, as from a document."""
        made = self.databases.lowered(self.workload)
        assert isinstance(made, Workload), made
        return made

    def start(self, *, kept: bool = True) -> None:
        """Start mongod as the agent would have it."""
        made = self.want()
        self.databases.prepare(KEY)
        home = self.databases.files.home(KEY)
        (self.data / "db").mkdir(exist_ok=True)
        # a socket's path may have 107 bytes, and a test's directory is deep: so it is said from where mongod stands
        places = Places(str(self.data / "db"), str(home / "tls"), "socket")
        command = [*command_line(str(self.program), made.spec, places), "--logpath", str(self.data / "log")]
        self._process = subprocess.Popen(
            tied([*command, "--wiredTigerCacheSizeGB", "0.25"]), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            cwd=home, env=self.environment,
        )  # fmt: skip
        self._starts += 1
        self.see(kept=kept)

    def see(self, *, kept: bool = True) -> Instance:
        """Show the agent what runs."""
        made = self.want()
        one = Instance(
            "1", KEY, made.digest, "a", "running", kept=kept, started=str(self._starts), address="127.0.0.1"
        )  # fmt: skip
        self.databases.seen("process", Observed((one,)))
        return one

    def stop(self, *, kill: bool = True) -> int:
        if self._process is None:
            return 0
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        return self._process.wait()

    def ended(self) -> int:
        """Wait for a mongod that ends by itself; return its exit code."""
        assert self._process is not None
        return self._process.wait(30)

    @asynccontextmanager
    async def running(self, *, kept: bool = True) -> AsyncIterator[None]:
        """mongod runs, and the agent looks after it, until users are as wanted."""
        self.start(kept=kept)
        try:
            async with self.tended():
                yield
        finally:
            self.stop()

    @asynccontextmanager
    async def tended(self) -> AsyncIterator[None]:
        await eventually(self.answers, 30, what="mongod")
        task = asyncio.create_task(self.databases.run())
        try:
            await eventually(self.settled, 20, what="users")
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            forget_half_made_connections()

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def settled(self) -> bool:
        database = self.databases.databases[KEY]
        return database.trouble is None and database.users.startswith(database.start) and database.ready

    def client(self, password: str = PASSWORD, **more: Any) -> AsyncMongoClient[dict[str, Any]]:
        who = {"username": "shop", "password": password, "authSource": "shop", "authMechanism": "SCRAM-SHA-256", **more}
        return AsyncMongoClient(
            "127.0.0.1", self.port, tls=True, tlsCAFile=str(self.databases.files.roots(KEY)),
            tlsAllowInvalidHostnames=True, directConnection=True, serverMonitoringMode="poll", retryWrites=False,
            serverSelectionTimeoutMS=30_000, **who,
        )  # fmt: skip
