"""An agent's databases by a real driver: what tests of them want, hold certificates with, and look at."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from pymongo import AsyncMongoClient

from agent.deployments.docker_engine import DockerEngine
from agent.deployments.driver import Driver
from agent.deployments.firewall import IpTables
from agent.deployments.given import Given
from agent.deployments.lane import LaneSettings
from agent.deployments.mongodb import Databases, DatabaseSettings
from agent.deployments.mongodb_driver import DatabaseDriver
from agent.deployments.mongodb_files import DatabaseFiles
from agent.deployments.mongodb_workload import Runtime
from agent.deployments.service import DeploymentService
from agent.sealing import Sealer
from schemas.session import Item
from tests.support.deployment_agent import AGENT, in_memory
from tests.support.deployment_agent import item as deployment_item
from tests.support.mongod import forget_half_made_connections
from tests.support.networked_engine import NetworkedEngine
from tests.support.service_world import World, make_issuer
from tests.support.service_world import item as certificate_item

PORT: Final = 27117
CERTIFICATE_SECONDS: Final = 500.0
"""Half of it is less than what certificates are dated back by, so that a renewed one is good by the real clock, too."""
PASSWORD: Final = "p@ss/w:rd?#[%]é"  # every character that has a meaning in a URI
USERS: Final = [{"name": "shop", "database": "shop", "password": {"name": "orders", "key": "password"}}]
SETTINGS: Final = LaneSettings(settle=0.3, drain=0.1, retry_base=0.2, retry_cap=1.0)
CHECK: Final = {"tcp": {"port": 27017}, "interval": "500ms", "startPeriod": "20s", "failures": 3}


def on_engine(machine: NetworkedEngine, folder: Path, agent: str = AGENT) -> DatabaseMachine:
    """An agent with a container engine."""

    def driver(_: Path) -> Driver:
        return DockerEngine(machine.socket, agent, firewall=IpTables(), secret_files=in_memory(machine.socket))

    return DatabaseMachine(folder, driver, "container")


def orders(
    version: str = "6.0", *, users: Any = USERS, mongodb: Any = None, image: bool = True, port: int = PORT, **spec: Any
) -> Item:
    """The database as its document has it."""
    images = {"image": f"mongod:{version}"} if image else {}
    return deployment_item(
        "orders",
        **{
            "type": "mongodb",
            "mongodb": {"version": version, "users": users, **images, **(mongodb or {})},
            "ports": [{"container": 27017, "host": port}],
            "healthCheck": CHECK,
            "rollout": {"deadline": "40s"},
            "stopGrace": "20s",
            **spec,
        },
    )


class DatabaseMachine:
    """The directory of an agent with a certificate for its database, whose secrets a test may change."""

    def __init__(
        self, folder: Path, driver: Callable[[Path], Driver], runtime: Runtime, *, port: int = PORT, mongod: str = ""
    ) -> None:
        self.data = folder / "data"
        self.data.mkdir(mode=0o700, parents=True)
        self.port = port
        self.key = ec.generate_private_key(ec.SECP256R1())
        issuer = make_issuer(folder / "keys", time.time())
        issuer._lifetime = lambda _: CERTIFICATE_SECONDS
        self.world = World(self.data, issuer)
        self.world.now = time.time()
        self.certificate = certificate_item()
        self.passwords = {"orders/password": PASSWORD}
        self._driver = driver
        self._runtime = runtime
        self._mongod = mongod

    def issue(self) -> None:
        """The certificate comes."""
        self.world.issue(self.certificate)

    def renew(self) -> None:
        """Another certificate comes."""
        self.world.connect()
        self.world.step(CERTIFICATE_SECONDS / 2)
        self.world.answer(self.certificate)

    @property
    def roots(self) -> Path:
        return self.data / "services" / "shop" / "orders" / "ca.crt"

    def databases(self) -> Databases:
        """Those of an agent that knows what is on its disk."""
        return Databases(
            DatabaseFiles(self.data, Sealer(self.key)),
            [self._runtime],
            held=self.world.service.held,
            secrets=lambda _: Given(dict(self.passwords)),
            mongod=lambda _: self._mongod,
            settings=DatabaseSettings(look=0.3, ask=0.3),
        )

    def service(self) -> DeploymentService:
        databases = self.databases()
        driver = DatabaseDriver(self._driver(self.data), databases)
        return DeploymentService(self.data, [driver], databases=databases, settings=SETTINGS)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[DeploymentService]:
        """The service of the agent, at work."""
        found = self.service()
        task = asyncio.create_task(found.run())
        try:
            yield found
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            forget_half_made_connections()

    def client(
        self, user: str | None = "shop", password: str = PASSWORD, **more: Any
    ) -> AsyncMongoClient[dict[str, Any]]:
        """A client as an application's, past Traefik."""
        who = {} if user is None else {
            "username": user, "password": password, "authSource": "shop", "authMechanism": "SCRAM-SHA-256"
        }  # fmt: skip
        return AsyncMongoClient(
            "127.0.0.1", self.port, tls=True, tlsCAFile=str(self.roots), tlsAllowInvalidHostnames=True,
            directConnection=True, serverMonitoringMode="poll", retryWrites=False, serverSelectionTimeoutMS=30_000,
            **{**who, **more},
        )  # fmt: skip
