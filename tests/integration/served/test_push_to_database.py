"""From a push alone a database appears at its host, over TLS and with a password, and its data outlives everything."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.write_concern import WriteConcern

from reconciler.pki.keystore import KeyStore
from reconciler.pki.sealing import seal
from tests.integration.served.conftest import Served
from tests.support import documents
from tests.support.mongod_image import make_mongod_image
from tests.support.older_mongods import LIBRARIES, require_older
from tests.support.parts import require
from tests.support.two_machines import AGENT, Site, TwoMachines
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

HOST: Final = f"{AGENT}.mongodb.{documents.DOMAIN}"
FILE: Final = "deployments/shop/orders.yaml"
USERS: Final = [{"name": "shop", "database": "shop", "password": {"name": "db", "key": "password"}}]


@pytest.fixture(scope="module", autouse=True)
def _images(machines: TwoMachines) -> None:
    make_mongod_image(machines.engine, "mongod:6.0", require("mongod"))
    make_mongod_image(machines.engine, "mongod:5.0", require_older("5.0"), libraries=LIBRARIES)


@pytest.fixture(autouse=True)
def _by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name of the fleet leads to the front, as DNS would have it."""
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda name, *rest, **kw: real("127.0.0.1" if str(name).endswith(".test") else name, *rest, **kw),
    )


def orders(version: str = "6.0", **spec: Any) -> bytes:
    mongodb = {"version": version, "image": f"mongod:{version}", "users": USERS}
    check = {"tcp": {"port": 27017}, "interval": "500ms"}
    ports = [{"name": "mongodb", "container": 27017, "host": 27117}]
    whole = {"type": "mongodb", "agents": [AGENT], "mongodb": mongodb, "ports": ports, "healthCheck": check}
    return documents.document("Deployment", "orders", {**whole, "stopGrace": "20s", **spec})


def files(site: Site, password: str, **more: bytes) -> dict[str, bytes | str | None]:
    recipient = KeyStore(site.one.data / "keys").recipient()
    route = {"type": "mongodb", "backends": [{"deployment": "orders"}], "transport": {"scheme": "https"}}
    return {
        "fleet.yaml": documents.fleet(documents.team("shop", agents=[AGENT]), recipients=[recipient]),
        "secrets/shop/db.yaml": documents.document(
            "Secret", "db", {"sealed": {"password": seal(password, [recipient])}}
        ),
        FILE: orders(),
        "routes/shop/db.yaml": documents.document("Route", "db", route),
        **more,
    }


def converged(site: Site, change: dict[str, bytes | str | None], why: str = "Change") -> None:
    revision = site.one.push(change, why)
    try:
        said = site.one.status_wait(revision)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{site.trouble()}") from None
    assert said["state"] == "Converged", f"{json.dumps(said)[:3000]}\n{site.trouble()}"


def connection_string(site: Site) -> str:
    """What ``cloudlunacy mongodb uri`` prints, with a gap for the password."""
    printed = site.one.cli("mongodb", "uri", "orders")
    assert printed.returncode == 0, printed.stderr
    uri = printed.stdout.strip()
    assert uri.startswith(f"mongodb://shop:<password>@{HOST}:"), uri
    assert "tls=true" in uri
    return uri


class Client:
    """Somebody who has a connection string and a password."""

    def __init__(self, site: Site, password: str) -> None:
        self.site = site
        self.uri = connection_string(site)
        self.password = password

    @contextmanager
    def collection(self, password: str = "") -> Iterator[Any]:
        with MongoClient[dict[str, Any]](self.uri.replace("<password>", password or self.password)) as client:
            yield client.get_default_database().orders.with_options(write_concern=WriteConcern(w=1, j=True))

    def write(self, number: int) -> None:
        with self.collection() as collection:
            collection.insert_one({"n": number})

    def found(self) -> list[int]:
        with self.collection() as collection:
            return [one["n"] for one in collection.find().sort("n")]

    def sees(self, *wanted: int) -> bool:
        try:
            return self.found() == list(wanted)
        except PyMongoError:
            return False

    def wait_for(self, *wanted: int) -> None:
        try:
            wait_for(lambda: self.sees(*wanted), 60, what=f"{wanted}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.site.trouble()}") from None

    def is_refused(self, password: str) -> bool:
        try:
            with self.collection(password) as collection:
                collection.find_one()
        except OperationFailure as error:
            return "Authentication failed" in str(error)
        return False


def test_a_database_from_a_push(served: Served) -> None:
    """Over TLS at its host to whoever has the password; its data is there after an agent's kill, an engine's restart, a
    redeploy, another password and an upgrade."""

    def scenario(site: Site) -> None:
        converged(site, files(site, "first", **{FILE: orders("5.0")}), "A database")
        client = Client(site, "first")
        client.write(1)
        assert client.is_refused("wrong")
        checked = site.one.cli("mongodb", "check", "orders", "--connect", "127.0.0.1")
        assert (checked.returncode, "shop is known" in checked.stdout) == (0, True), checked.stdout + checked.stderr

        site.kill_agent()
        assert client.found() == [1]
        site.start_agent()
        engine = site.machines.engine
        engine.shut_down()
        engine.boot()
        client.wait_for(1)
        client.write(2)

        converged(site, {FILE: orders("5.0", resources={"memory": "1Gi"})}, "More memory")
        client.wait_for(1, 2)
        former = site.started()
        converged(site, {FILE: orders("6.0", resources={"memory": "1Gi"})}, "Upgrade")
        client.wait_for(1, 2)
        assert site.containers() == [("orders", "mongod:6.0", "running")]
        before = site.started()
        assert before != former

        changed = {"secrets/shop/db.yaml": files(site, "second")["secrets/shop/db.yaml"]}
        site.one.push(changed, "Another password")
        wait_for(lambda: client.is_refused("first"), 30, what="the end of the former password")
        client.password = "second"
        assert client.found() == [1, 2]
        assert site.started() == before, "for another password nothing is restarted"

        refused = site.one.push({FILE: orders("5.0")}, "Back")
        said = site.one.status_wait(refused)
        assert said["reason"] == "Quarantined"
        assert [one["code"] for one in said["quarantined"]] == ["mongodb-upgrade-refused"]
        assert client.found() == [1, 2]

    served(scenario, capabilities=("container", "mongodb"))


def test_a_backup_is_made_and_written_back_by_command(served: Served) -> None:
    """``cloudlunacy deploy backup`` and ``restore``; what would be replaced has to be said so."""

    def scenario(site: Site) -> None:
        converged(site, files(site, "first"), "A database")
        client = Client(site, "first")
        client.write(1)
        made = site.one.cli("deploy", "backup", "shop/orders")
        assert made.returncode == 0, made.stderr + site.trouble()
        client.write(2)
        words = ("deploy", "restore", "shop/orders", "--archive", made.stdout.split()[0], "--yes")
        refused = site.one.cli(*words)
        assert (refused.returncode != 0, "has data" in refused.stderr) == (True, True), refused.stderr
        assert client.found() == [1, 2]
        restored = site.one.cli(*words, "--replace")
        assert restored.returncode == 0, restored.stderr
        assert client.found() == [1]
        listed = site.one.cli("deploy", "backups", "shop/orders").stdout
        assert [line.split()[0].rpartition("-")[2] for line in listed.splitlines()] == ["asked", "replaced"]

    served(scenario, capabilities=("container", "mongodb"))
