"""The real mongod behind the real Traefik, asked by the real driver."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import ServerSelectionTimeoutError

from tests.support.orphans import tied
from tests.support.parts import require
from tests.support.ports import free_port
from tests.support.traefik import Front, agent, front, lookup, route
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("mongod")
    port = free_port()
    command = [
        str(require("mongod")),
        "--dbpath",
        str(folder),
        "--port",
        str(port),
        "--bind_ip",
        "127.0.0.1",
        "--nounixsocket",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(tied(command), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: b"Waiting for connections" in (folder / "log").read_bytes(), 30, what="mongod")
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def database_front(tmp_path: Path, mongod: int) -> Iterator[Front]:
    with front(tmp_path) as running:
        database = route("db", type="mongodb", backends=[{"agent": "vps-1", "port": mongod}])
        running.serve(lookup(agent(), fleet=running.fleet), database)
        yield running


def client(running: Front, monkeypatch: pytest.MonkeyPatch, host: str, **more: Any) -> MongoClient[dict[str, Any]]:
    """Connect to ``host`` as if DNS led its name to the front: the driver sends it as SNI."""
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda name, *rest, **kw: real("127.0.0.1" if str(name).endswith(".test") else name, *rest, **kw),
    )
    return MongoClient(
        host,
        running.ports["mongodb"],
        directConnection=True,
        tlsAllowInvalidCertificates=True,
        tlsAllowInvalidHostnames=True,
        serverSelectionTimeoutMS=1500,
        **{"tls": True, **more},
    )


def test_a_client_reaches_its_agents_database(database_front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """Insert and find through TLS that ends at Traefik."""
    with client(database_front, monkeypatch, "vps-1.mongodb.cloudlunacy.test") as connected:
        connected.shop.orders.insert_one({"n": 1})
        assert connected.shop.orders.count_documents({"n": 1}) == 1


@pytest.mark.parametrize(
    "more", [{"host": "vps-9.mongodb.cloudlunacy.test"}, {"host": "vps-1.mongodb.cloudlunacy.test", "tls": False}]
)
def test_an_unknown_name_is_refused_in_words_that_a_driver_understands(
    database_front: Front, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    """A closed connection, and not an HTTP answer that the driver takes for a MongoDB message."""
    with client(database_front, monkeypatch, **more) as refused:
        started = time.monotonic()
        with pytest.raises(ServerSelectionTimeoutError) as caught:
            refused.admin.command("ping")
        assert time.monotonic() - started < 10
        assert "closed" in str(caught.value) or "EOF" in str(caught.value)
        assert "response id" not in str(caught.value)
