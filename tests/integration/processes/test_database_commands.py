"""``cloudlunacy deploy backup|backups|restore`` with nothing simulated: ``serve``, ``agent run``, a confined mongod."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from pymongo import MongoClient
from pymongo.write_concern import WriteConcern

from agent.deployments.process_machine import look
from reconciler.pki.keystore import KeyStore
from reconciler.pki.sealing import seal
from tests.support import documents
from tests.support.fleet import Installation, installation
from tests.support.parts import require
from tests.support.ports import free_port
from tests.support.process_agent import end_all
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.timeout(240), pytest.mark.skipif(bool(look().lacking), reason=look().lacking)]

NAME: Final = "vps-1"
PASSWORD: Final = "p@ss/w:rd?#[%]é"
USERS: Final = [{"name": "shop", "database": "shop", "password": {"name": "db", "key": "password"}}]
JOURNALLED: Final = WriteConcern(w=1, j=True)


class Shop:
    """A fleet whose agent, which has no engine, runs the database ``shop/orders`` as a process."""

    def __init__(self, one: Installation) -> None:
        self.one = one
        self.port = free_port()

    def start(self) -> None:
        done = self.one.enrol(NAME)
        assert done.returncode == 0, done.stderr
        settings = f'[processes]\nmongod = "{require("mongod")}"\nreadable = ["{require("mongod").parent}"]\n'
        (self.one.agent_data(NAME) / "agent.toml").write_text(settings)
        self.one.agent_options = ("--engine", str(self.one.folder / "no-engine.sock"))
        self.agent = self.one.run_agent(NAME)
        recipient = KeyStore(self.one.data / "keys").recipient()
        self.one.push({
            "fleet.yaml": documents.fleet(documents.team("shop", agents=[NAME]), recipients=[recipient]),
            "secrets/shop/db.yaml": documents.document(
                "Secret", "db", {"sealed": {"password": seal(PASSWORD, [recipient])}}
            ),
            "deployments/shop/orders.yaml": self.document(),
        })  # fmt: skip
        self.wait()

    def document(self) -> bytes:
        mongodb = {"version": "6.0", "users": USERS}
        ports = [{"name": "mongodb", "container": 27017, "host": self.port}]
        check = {"tcp": {"port": 27017}, "interval": "500ms", "startPeriod": "20s"}
        spec = {"type": "mongodb", "agents": [NAME], "mongodb": mongodb, "ports": ports, "healthCheck": check}
        return documents.document("Deployment", "orders", spec)

    def wait(self) -> None:
        wait_for(lambda: self.reason() == "Running", 90, what=f"{self.reason()}\n{self.one.agent_log(NAME)[-3000:]}")

    def reason(self) -> str:
        found = self.one.client.get("/api/v1/deployments/shop/orders", headers=self.one.headers())
        results = [one.get("result") or {} for one in found.json()["agents"]] if found.is_success else []
        return str(results[0].get("reason")) if results else ""

    @contextmanager
    def orders(self) -> Iterator[Any]:
        """A client as an application's, past Traefik."""
        roots = self.one.agent_data(NAME) / "services" / "shop" / "orders" / "ca.crt"
        with MongoClient[dict[str, Any]](
            "127.0.0.1", self.port, username="shop", password=PASSWORD, authSource="shop",
            authMechanism="SCRAM-SHA-256", tls=True, tlsCAFile=str(roots), tlsAllowInvalidHostnames=True,
            directConnection=True, retryWrites=False, serverSelectionTimeoutMS=30_000,
        ) as client:  # fmt: skip
            yield client.shop.orders.with_options(write_concern=JOURNALLED)

    def write(self, number: int) -> None:
        with self.orders() as orders:
            orders.insert_one({"n": number})

    def numbers(self) -> list[int]:
        with self.orders() as orders:
            return [one["n"] for one in orders.find().sort("n")]

    def deploy(self, action: str, *words: str) -> tuple[int, str, str]:
        done = self.one.cli("deploy", action, "shop/orders", *words)
        return done.returncode, done.stdout, done.stderr

    def kinds(self) -> list[str]:
        """Why each backup was made, as ``deploy backups`` lists them."""
        code, listed, said = self.deploy("backups")
        assert code == 0, said
        return [line.split()[0].rpartition("-")[2] for line in listed.splitlines()]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    files = {
        "fleet.yaml": documents.fleet(documents.team("shop", agents=[NAME])),
        f"agents/{NAME}.yaml": documents.agent(NAME),
    }
    with installation(tmp_path / "one", files, traefik=False) as running:
        found = Shop(running)
        try:
            found.start()
            yield found
        finally:
            running.close()
            end_all(running.agent_data(NAME))


def test_a_backup_is_made_listed_and_written_back(shop: Shop) -> None:
    """Also after a kill of the agent; what is there goes only when that is said, and is kept as a backup first."""
    shop.write(1)
    code, made, said = shop.deploy("backup")
    assert (code, " 1 documents in 1 collections of MongoDB 6.0" in made) == (0, True), made + said
    shop.write(2)
    shop.agent.kill()
    shop.agent.wait()
    code, _, said = shop.deploy("backup")
    assert (code != 0, NAME in said) == (True, True), said
    shop.agent = shop.one.run_agent(NAME)
    shop.one.wait_connected(NAME)
    wait_for(lambda: shop.deploy("backups")[0] == 0, 30, what="the agent's answer")
    assert shop.kinds() == ["asked"]

    archive = ("--archive", made.split()[0])
    code, _, said = shop.deploy("restore", *archive)
    assert (code != 0, "Say --yes" in said) == (True, True), said
    shop.wait()
    code, _, said = shop.deploy("restore", *archive, "--yes")
    assert (code != 0, "has data, which stays" in said) == (True, True), said
    code, _, said = shop.deploy("restore", "--archive", "20200101T000000Z-asked", "--yes", "--replace")
    assert code != 0, "there is no such backup"
    assert shop.numbers() == [1, 2]
    code, _, said = shop.deploy("restore", *archive, "--yes", "--replace")
    assert code == 0, said
    assert shop.numbers() == [1]
    assert shop.kinds() == ["asked", "replaced"]
