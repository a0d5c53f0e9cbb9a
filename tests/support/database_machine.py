"""An agent's databases on a real engine: what tests of them want, hold certificates with, and look at."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from pymongo import AsyncMongoClient

from agent.deployments.docker_engine import DockerEngine
from agent.deployments.firewall import IpTables
from agent.deployments.given import Given
from agent.deployments.lane import LaneSettings
from agent.deployments.mongodb import Databases, DatabaseSettings
from agent.deployments.mongodb_driver import DatabaseDriver
from agent.deployments.mongodb_files import DatabaseFiles
from agent.deployments.service import DeploymentService
from agent.sealing import Sealer
from schemas.session import Item
from tests.support.deployment_agent import AGENT, IN_MEMORY
from tests.support.deployment_agent import item as deployment_item
from tests.support.networked_engine import NetworkedEngine
from tests.support.service_world import World, make_issuer
from tests.support.service_world import item as certificate_item

PORT: Final = 27117
PASSWORD: Final = "p@ss/w:rd?#[%]é"  # every character that has a meaning in a URI
USERS: Final = [{"name": "shop", "database": "shop", "password": {"name": "orders", "key": "password"}}]
SETTINGS: Final = LaneSettings(settle=0.3, drain=0.1, retry_base=0.2, retry_cap=1.0)
CHECK: Final = {"tcp": {"port": 27017}, "interval": "500ms", "startPeriod": "20s", "failures": 3}


def orders(version: str = "6.0", *, users: Any = USERS, mongodb: Any = None, **spec: Any) -> Item:
    """The database as its document has it."""
    return deployment_item(
        "orders",
        **{
            "type": "mongodb",
            "mongodb": {"version": version, "users": users, "image": f"mongod:{version}", **(mongodb or {})},
            "ports": [{"container": 27017, "host": PORT}],
            "healthCheck": CHECK,
            "rollout": {"deadline": "40s"},
            "stopGrace": "20s",
            **spec,
        },
    )


class DatabaseMachine:
    """The directory of an agent with a certificate for its database, whose secrets a test may change."""

    def __init__(self, folder: Path, machine: NetworkedEngine, agent: str = AGENT) -> None:
        self.data = folder / "data"
        self.data.mkdir(mode=0o700, parents=True)
        self.machine = machine
        self.agent = agent
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.world = World(self.data, make_issuer(folder / "keys", time.time()))
        self.world.now = time.time()
        self.certificate = certificate_item()
        self.passwords = {"orders/password": PASSWORD}

    def issue(self) -> None:
        """The certificate comes."""
        self.world.issue(self.certificate)

    @property
    def roots(self) -> Path:
        return self.data / "services" / "shop" / "orders" / "ca.crt"

    def databases(self) -> Databases:
        files = DatabaseFiles(self.data, Sealer(self.key))
        return Databases(
            files,
            ["container"],
            held=self.world.service.held,
            secrets=lambda _: Given(dict(self.passwords)),
            settings=DatabaseSettings(look=0.3, ask=0.3),
        )

    def service(self, databases: Databases) -> DeploymentService:
        engine = DockerEngine(self.machine.socket, self.agent, firewall=IpTables(), secret_files=IN_MEMORY)
        return DeploymentService(self.data, [DatabaseDriver(engine, databases)], databases=databases, settings=SETTINGS)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[DeploymentService]:
        """The service of the agent, at work."""
        found = self.service(self.databases())
        task = asyncio.create_task(found.run())
        try:
            yield found
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def client(
        self, user: str | None = "shop", password: str = PASSWORD, **more: Any
    ) -> AsyncMongoClient[dict[str, Any]]:
        """A client as an application's, past Traefik."""
        who = {} if user is None else {
            "username": user, "password": password, "authSource": "shop", "authMechanism": "SCRAM-SHA-256"
        }  # fmt: skip
        return AsyncMongoClient(
            "127.0.0.1", PORT, tls=True, tlsCAFile=str(self.roots), tlsAllowInvalidHostnames=True,
            directConnection=True, retryWrites=False, serverSelectionTimeoutMS=5000, **{**who, **more},
        )  # fmt: skip
