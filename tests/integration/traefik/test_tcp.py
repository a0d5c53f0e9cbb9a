"""TCP and MongoDB routes on the real Traefik: by server name, and cleanly refused without a known one."""

from __future__ import annotations

import json
import socket
import ssl
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from schemas.route import Route
from tests.integration.traefik.test_http import Two, look
from tests.support.traefik import Backend, Front, agent, route
from tests.support.waiting import wait_for

MONGODB_HELLO = bytes.fromhex("3a0000000100000000000000d4070000")
QUICK = 1.0
"""Seconds."""


def tcp(two: Two, name: str = "mail", **spec: Any) -> Route:
    backends = spec.pop("backends", [{"agent": "vps-1", "port": two[0].port}])
    return route(name, **{"type": "tcp", "entryPoint": "mail", "backends": backends, **spec})


def database(backend: Backend, name: str = "db", *, on: str = "vps-1", **spec: Any) -> Route:
    return route(name, type="mongodb", backends=[{"agent": on, "port": backend.port}], **spec)


def ask(connection: socket.socket) -> str:
    """Ask the backend behind the connection for its name; empty when the connection ends without an answer."""
    with connection:
        connection.settimeout(5)
        answer = b""
        with suppress(ConnectionError):  # how Traefik ends one that has something to read
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while part := connection.recv(65536):
                answer += part
    body = answer.partition(b"\r\n\r\n")[2]
    return str(json.loads(body)["backend"]) if body else ""


def end(front: Front, point: str, server_name: str | None, hello: bytes = MONGODB_HELLO) -> bytes:
    """What a client of an unknown name gets before the connection ends."""
    try:
        with front.connect(point, server_name) as connection:
            connection.sendall(hello)
            return connection.recv(100)
    except (ssl.SSLError, ConnectionError):
        return b""


def test_a_tcp_route_is_found_by_server_name(running: Front, two: Two) -> None:
    """Exact names and wildcards, in any letter case; each leads to its own backend."""
    wild = tcp(two, "wild", hostnames=["*.mail.test"], backends=[{"agent": "vps-1", "port": two[1].port}])
    running.serve(look(running), tcp(two, hostnames=["in.mail.test"]), wild)
    assert ask(running.connect("smtps", "in.mail.test")) == "one"
    assert ask(running.connect("smtps", "IN.Mail.test")) == "one"
    assert ask(running.connect("smtps", "other.mail.test")) == "two"


@pytest.mark.parametrize("name", ["mail.test", "a.b.mail.test", "in.mailxtest", "unknown.test", None])
def test_an_unknown_name_ends_at_once(running: Front, two: Two, name: str | None) -> None:
    """Neither another route's backend nor Traefik's HTTP server answers, with TLS or without."""
    running.serve(look(running), tcp(two, hostnames=["*.mail.test"]))
    assert end(running, "smtps", name, b"EHLO x\r\n") == b""


def test_a_plain_tcp_route_owns_its_entry_point(running: Front, two: Two) -> None:
    """tls.mode none: whatever connects reaches the backend, without waiting for a ClientHello."""
    running.serve(look(running), tcp(two, entryPoint="plain", tls={"mode": "none"}))
    assert ask(running.connect("telnet")) == "one"


def test_a_server_that_speaks_first_is_heard(running: Front, two: Two) -> None:
    """On a plain entry point Traefik does not wait for the client: its catch-alls are only where TLS names are read."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        plain = tcp(two, entryPoint="plain", tls={"mode": "none"}, backends=[{"agent": "vps-1", "port": port}])
        running.serve(look(running), plain, tcp(two, "other", hostnames=["in.mail.test"]))
        with running.connect("telnet") as client:
            client.settimeout(QUICK)
            accepted, _ = server.accept()
            with accepted:
                accepted.sendall(b"220 ready\r\n")
                assert client.recv(100) == b"220 ready\r\n"


def test_tcp_weights(running: Front, two: Two) -> None:
    """Of 20 connections a backend of weight 3 gets 15."""
    shares = [{"agent": "vps-1", "port": each.port, "weight": weight} for each, weight in zip(two, (3, 1), strict=True)]
    running.serve(look(running), tcp(two, entryPoint="plain", tls={"mode": "none"}, backends=shares))
    assert Counter(ask(running.connect("telnet")) for _ in range(20)) == {"one": 15, "two": 5}


@pytest.mark.parametrize("weight", [1, 2])
def test_tcp_health_check(running: Front, two: Two, weight: int) -> None:
    """A backend that refuses connections gets none, whether shares are even or not."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        dead = gone.getsockname()[1]
    shares = [{"agent": "vps-1", "port": dead, "weight": weight}, {"agent": "vps-1", "port": two[0].port}]
    check = {"interval": "50ms", "timeout": "40ms"}
    running.serve(look(running), tcp(two, entryPoint="plain", tls={"mode": "none"}, backends=shares, healthCheck=check))

    wait_for(lambda: {ask(running.connect("telnet")) for _ in range(6)} == {"one"}, 30, what="the one that is there")


def test_each_agents_database_has_its_own_name(running: Front, two: Two) -> None:
    """<agent>.mongodb.<domain> leads to that agent and no other."""
    everywhere = route(
        "db",
        type="mongodb",
        backends=[{"agent": "vps-1", "port": two[0].port}, {"agent": "vps-2", "port": two[1].port}],
    )
    running.serve(look(running, agent("vps-2")), everywhere)
    assert ask(running.connect("mongodb", "vps-1.mongodb.cloudlunacy.test")) == "one"
    assert ask(running.connect("mongodb", "vps-2.mongodb.cloudlunacy.test")) == "two"


@pytest.mark.parametrize("name", ["vps-9.mongodb.cloudlunacy.test", "cloudlunacy.test", None])
def test_an_unknown_database_ends_at_once(running: Front, two: Two, name: str | None) -> None:
    """A driver reads a clean end of the connection, not an HTTP answer that it would misread."""
    running.serve(look(running), database(two[0]))
    assert end(running, "mongodb", name) == b""


def test_a_database_on_a_quarantined_agent_is_refused(running: Front, two: Two) -> None:
    """Its name is as unknown as any other."""
    running.serve(look(running, agent("vps-2", state="quarantined")), database(two[1], on="vps-2"))
    assert end(running, "mongodb", "vps-2.mongodb.cloudlunacy.test") == b""
    assert two[1].requests == []


def test_an_open_connection_survives_changes(running: Front, two: Two) -> None:
    """Another route, and even the removal of its own, does not cut a connection that is established."""
    running.serve(look(running), database(two[0]))
    with running.connect("mongodb", "vps-1.mongodb.cloudlunacy.test") as connection:
        connection.settimeout(5)
        running.serve(look(running), tcp(two, hostnames=["in.mail.test"]))
        connection.sendall(b"GET /late HTTP/1.0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_passthrough_leaves_tls_to_the_backend(running: Front, two: Two) -> None:
    """The ClientHello reaches the backend as it was sent; Traefik does not answer it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        port = server.getsockname()[1]
        passing = tcp(
            two, hostnames=["in.mail.test"], tls={"mode": "passthrough"}, backends=[{"agent": "vps-1", "port": port}]
        )
        running.serve(look(running), passing)
        hello = ssl.MemoryBIO()
        context = ssl.create_default_context()
        client = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="in.mail.test")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        sent = hello.read()
        with running.connect("smtps") as connection:
            connection.sendall(sent)
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(5)
                assert accepted.recv(65536) == sent


def test_only_listed_addresses_connect(running: Front, two: Two) -> None:
    """Others are cut off at once, and the backend hears nothing of them."""
    name = "vps-1.mongodb.cloudlunacy.test"
    for ranges, answer in (["10.0.0.0/8"], ""), (["127.0.0.0/8"], "one"):
        running.serve(look(running), database(two[0], middlewares=[{"ipAllowList": {"ranges": ranges}}]))
        try:
            assert ask(running.connect("mongodb", name)) == answer
        except (ssl.SSLError, ConnectionError):
            assert answer == ""
    assert len(two[0].requests) == 1


def test_connections_of_one_address_are_limited(running: Front, two: Two) -> None:
    """The one too many is closed, those before it go on, and one that ends makes room."""
    name = "vps-1.mongodb.cloudlunacy.test"
    running.serve(look(running), database(two[0], middlewares=[{"connectionLimit": {"amount": 2}}]))

    def answers() -> str:
        try:
            return ask(running.connect("mongodb", name))
        except (ssl.SSLError, ConnectionError):
            return ""

    with running.connect("mongodb", name) as first, running.connect("mongodb", name) as second:
        for held in (first, second):
            held.sendall(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
            assert held.recv(100).startswith(b"HTTP/1.1 200")
        assert answers() == ""
    wait_for(lambda: answers() == "one", 5)
