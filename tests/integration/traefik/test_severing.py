"""Real connections of this machine, ended from outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from reconciler.observability.mongodb_metrics import MongoDBMetrics
from reconciler.traefik import severing, sock_diag
from reconciler.traefik.severing import Severing
from reconciler.traefik.sock_diag import Unable
from tests.support.documents import state_of
from tests.support.memory_store import MemoryStore
from tests.unit.desired.test_severed import BEFORE, database


@pytest.fixture(autouse=True)
def able() -> None:
    with contextlib.suppress(Unable):
        return sock_diag.probe()
    pytest.skip("needs CAP_NET_ADMIN and a kernel that ends connections")


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket, str]]:
    """Both ends of a connection, and its backend."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.create_server((request.param, 0), family=family))
        host, port = listener.getsockname()[:2]
        client = held.enter_context(socket.create_connection((host, port)))
        server = held.enter_context(listener.accept()[0])
        for one in (client, server):
            one.settimeout(10)
        yield client, server, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def test_both_ends_learn_of_it(pair: tuple[socket.socket, socket.socket, str]) -> None:
    """At once, and other connections go on."""
    client, server, backend = pair
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as other:
        assert severing.sever([backend]) == 1
        with pytest.raises(ConnectionAbortedError):
            client.recv(1)
        with pytest.raises(ConnectionResetError):
            server.recv(1)
        other.sendall(b"x")
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(1) == b"x"
    assert severing.sever([backend]) == 0


def test_a_backend_without_an_address_is_nobodys() -> None:
    """Its name has gone from DNS."""
    assert severing.sever(["nowhere.invalid:27017"]) == 0


def test_what_cannot_be_done_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason, and what remains."""

    def refuse(_: object) -> int:
        raise Unable("serve lacks the capability CAP_NET_ADMIN")

    monkeypatch.setattr(sock_diag, "destroy", refuse)
    store = MemoryStore()
    before = state_of(BEFORE)
    after = state_of(BEFORE | {"routes/shop/db.yaml": database()})
    registry = CollectorRegistry()
    asyncio.run(Severing(store, MongoDBMetrics(registry), clock=lambda: 1.0).confirmed(before, after))
    assert registry.get_sample_value("cloudlunacy_connections_remaining_total") == 1
    [event] = store.disk.events
    assert (event.type, event.severity) == ("ConnectionsRemain", "warning")
    assert "192.0.2.7:27117 cannot be ended: serve lacks the capability CAP_NET_ADMIN" in event.message


@pytest.mark.skipif(os.geteuid() != 0, reason="drops a capability that only root has")
def test_a_missing_capability_is_told(tmp_path: object) -> None:
    """By the sentence that doctor shows."""
    told: list[str] = []

    def child() -> None:
        os.setresuid(65534, 65534, 65534)
        try:
            sock_diag.probe()
        except Unable as error:
            told.append(str(error))
        os._exit(0 if told == ["serve lacks the capability CAP_NET_ADMIN"] else 1)

    process = os.fork()
    if process == 0:
        child()
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
