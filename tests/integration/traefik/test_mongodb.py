"""The real mongod behind the real Traefik, asked by the real driver: TLS on both sides, a sentence when it fails."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError, ServerSelectionTimeoutError

from reconciler.desired.composition import joined
from reconciler.desired.doors import door_objects
from reconciler.errors import Broken
from reconciler.mongodb.check import Wanted, check
from reconciler.mongodb.doorman import SENTENCES, Doorman
from tests.integration.traefik.test_http import look
from tests.support.mongod import DATABASE, PASSWORD, USER, Mongod, mongod
from tests.support.pairs import FakeAuthority
from tests.support.traefik import Front, agent, backends, front, route
from tests.support.waiting import wait_for

HOST = "vps-1.mongodb.cloudlunacy.test"
CREDENTIALS = {
    "username": USER,
    "password": PASSWORD,
    "authSource": DATABASE,
    "authMechanism": "SCRAM-SHA-256",
}
PATIENCE = 1500
"""Milliseconds that a driver waits for a server. What it says before that, it says at once."""


@pytest.fixture(scope="module")
def authority() -> FakeAuthority:
    return FakeAuthority(now=datetime.now(UTC))


@pytest.fixture(scope="module")
def roots(authority: FakeAuthority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("roots") / "ca.pem"
    path.write_text(authority.bundle)
    return path


@pytest.fixture(scope="module")
def database(authority: FakeAuthority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    folder = tmp_path_factory.mktemp("database")
    authority.context_of_agent(folder, "vps-1")
    pem = (folder / "vps-1.pem").read_text()
    with mongod(folder / "mongod", pem=pem, roots=authority.bundle) as running:
        yield running


@contextmanager
def attended(data: Path) -> Iterator[Doorman]:
    """A doorman at work, in a thread of its own."""
    doorman, loop = Doorman.open(data), asyncio.new_event_loop()
    serving = loop.create_task(doorman.run())
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.gather(serving, return_exceptions=True)))
    thread.start()
    try:
        yield doorman
    finally:
        loop.call_soon_threadsafe(serving.cancel)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, authority: FakeAuthority, database: Mongod
) -> Iterator[tuple[Front, Doorman]]:
    """A front with the certificate for databases, the authority's roots, a doorman and a route to the database."""
    folder = tmp_path_factory.mktemp("front")
    with front(folder / "front") as one, attended(folder) as doorman:
        certificate = authority.pair("*.mongodb.cloudlunacy.test").certificate
        overlay = one.renderer.overlay({"mongodb": certificate}, roots=authority.bundle)
        doors = joined([one.renderer.fragments(door_objects(one.fleet, doorman.doors))])
        one.overlay = replace(overlay, texts={**overlay.texts, **doors})
        serve(one, database)
        yield one, doorman


def serve(one: Front, database: Mongod, **spec: Any) -> None:
    backends = [{"agent": "vps-1", "port": database.port}]
    transport = {"scheme": "https"}
    one.serve(look(one, agent()), route("db", type="mongodb", backends=backends, transport=transport, **spec))


@pytest.fixture
def connect(running: tuple[Front, Doorman], roots: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Connect to a name as if DNS led it to the front."""
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda name, *rest, **kw: real("127.0.0.1" if str(name).endswith(".test") else name, *rest, **kw),
    )

    def client(
        host: str = HOST, *, credentials: Mapping[str, str] = CREDENTIALS, **more: Any
    ) -> MongoClient[dict[str, Any]]:
        options = {
            "tls": True,
            "directConnection": True,
            "retryWrites": False,
            "serverSelectionTimeoutMS": PATIENCE,
            **credentials,
            **more,
        }
        if options["tls"]:
            options.setdefault("tlsCAFile", str(roots))
        return MongoClient(host, running[0].ports["mongodb"], **options)

    return client


def said(client: MongoClient[dict[str, Any]], kind: type[PyMongoError]) -> str:
    """What the driver says to an application that inserts."""
    with client, pytest.raises(kind) as caught:
        client[DATABASE].orders.insert_one({"n": 1})
    return str(caught.value)


def test_a_client_reaches_its_agents_database(connect: Any) -> None:
    """Insert and find, through TLS that ends at Traefik and TLS from there to the agent."""
    with connect() as client:
        client[DATABASE].orders.insert_one({"n": 1})
        assert client[DATABASE].orders.count_documents({"n": 1}) == 1


@pytest.mark.parametrize("wrong", [{"password": "wrong"}, {"username": "somebody"}, {"authSource": "other"}])
def test_wrong_credentials_are_said_by_the_database(connect: Any, wrong: dict[str, str]) -> None:
    """At once, and in the same words whichever of them is wrong."""
    told = said(connect(credentials={**CREDENTIALS, **wrong}), OperationFailure)
    assert told.startswith("Authentication failed.")


def test_nobody_reads_without_a_password(connect: Any) -> None:
    """Whoever comes without credentials is told that they are needed."""
    assert "requires authentication" in said(connect(credentials={}), OperationFailure)


def test_an_unknown_name_is_said(connect: Any) -> None:
    """The certificate is good for any database's name, so the driver gets as far as the doorman's sentence."""
    assert said(connect("vps-9.mongodb.cloudlunacy.test"), OperationFailure).startswith(SENTENCES["unknown"])


def test_a_missing_name_is_said(connect: Any) -> None:
    """By the doorman to a client that checks no names, and by the driver itself to one that does."""
    assert said(connect("127.0.0.1", tlsAllowInvalidCertificates=True), OperationFailure).startswith(
        SENTENCES["unnamed"]
    )
    assert "certificate verify failed" in said(connect("127.0.0.1"), ServerSelectionTimeoutError)


def test_missing_tls_is_said(connect: Any) -> None:
    """A client without TLS is told to use it; its password is not asked for."""
    assert said(connect(tls=False), OperationFailure).startswith(SENTENCES["plain"])


def test_a_wrong_authority_is_said_by_the_driver(connect: Any, tmp_path: Path) -> None:
    """It trusts others than the fleet's."""
    other = tmp_path / "other.pem"
    other.write_text(FakeAuthority().bundle)
    assert "certificate verify failed" in said(connect(tlsCAFile=str(other)), ServerSelectionTimeoutError)


def test_without_a_doorman_unknown_names_are_closed(
    running: tuple[Front, Doorman], database: Mongod, connect: Any
) -> None:
    """The doors are only words: where nobody answers at them, nobody gets any further."""
    one, doorman = running
    overlay = one.overlay
    try:
        dead = replace(doorman.doors, addresses=dict.fromkeys(doorman.ports, "127.0.0.1:1"))
        doors = joined([one.renderer.fragments(door_objects(one.fleet, dead))])
        one.overlay = replace(overlay, texts={**overlay.texts, **doors})
        serve(one, database)
        assert "EOF" in said(connect("vps-9.mongodb.cloudlunacy.test"), ServerSelectionTimeoutError)
    finally:
        one.overlay = overlay
        serve(one, database)


def test_who_is_not_on_the_list_reaches_nobody(running: tuple[Front, Doorman], database: Mongod, connect: Any) -> None:
    """An address that is on no IP allow list is closed; another name does not lead around the list."""
    one, _ = running
    try:
        serve(one, database, middlewares=[{"ipAllowList": {"ranges": ["192.0.2.0/24"]}}])
        assert "EOF" in said(connect(), ServerSelectionTimeoutError)
        serve(one, database, middlewares=[{"ipAllowList": {"ranges": ["127.0.0.0/8"]}}])
        with connect() as client:
            client[DATABASE].orders.insert_one({"n": 2})
    finally:
        serve(one, database)


def has_room(connect: Any) -> bool:
    with connect() as client, suppress(AutoReconnect):
        return bool(client[DATABASE].orders.insert_one({"n": 4}).acknowledged)
    return False


def test_connections_are_limited(running: tuple[Front, Doorman], database: Mongod, connect: Any) -> None:
    """A driver keeps one connection to watch its server and one to work; a second one finds no room."""
    one, _ = running
    try:
        serve(one, database, middlewares=[{"connectionLimit": {"amount": 3}}])
        with connect() as client:
            client[DATABASE].orders.insert_one({"n": 3})
            said(connect(maxPoolSize=1), AutoReconnect)
        wait_for(lambda: has_room(connect), 10, what="a connection after others were closed")
    finally:
        serve(one, database)


def leaf_of(database: Mongod) -> bytes:
    """What the database itself presents."""
    context = ssl.create_default_context(cafile=str(database.roots))
    raw = socket.create_connection(("127.0.0.1", database.port), 5)
    with context.wrap_socket(raw, server_hostname="vps-1.agents.cloudlunacy.test") as connection:
        return connection.getpeercert(binary_form=True) or b""


def test_a_database_takes_a_renewed_certificate(
    connect: Any, database: Mongod, authority: FakeAuthority, tmp_path: Path
) -> None:
    """The files are swapped as an agent does, mongod is told, and whoever is connected notices nothing."""
    before = leaf_of(database)
    authority.context_of_agent(tmp_path, "vps-1")
    with connect(maxPoolSize=1) as client:
        client[DATABASE].orders.insert_one({"n": 8})
        connections = client.admin.command("hello")["connectionId"]
        (tmp_path / "vps-1.pem").replace(database.pem)
        with database.direct(username="root", password="root") as root:
            root.admin.command("rotateCertificates", 1)
        assert client.admin.command("hello")["connectionId"] == connections
    assert leaf_of(database) != before
    with connect() as client:
        client[DATABASE].orders.insert_one({"n": 9})


# --- cloudlunacy mongodb check -------------------------------------------------------------------------------------


def wanted(one: Front, roots: Path, **more: Any) -> Wanted:
    said = {"user": USER, "password": PASSWORD, "database": DATABASE, "ca_file": str(roots), "address": "127.0.0.1"}
    return Wanted(**{"host": HOST, "port": one.ports["mongodb"], **said, **more})


def failed(one: Wanted) -> tuple[list[str], str]:
    """The steps that passed, and the sentence of the one that did not."""
    steps, passed = check(one), []
    try:
        while True:
            passed.append(next(steps).step)
    except Broken as error:
        return passed, str(error)


def test_check_goes_all_the_way(running: tuple[Front, Doorman], roots: Path) -> None:
    """With a password, and without one as far as that goes."""
    found = list(check(wanted(running[0], roots)))
    assert [one.step for one in found] == ["address", "tcp", "tls", "login"]
    assert found[-1].found.startswith("shop is known, and the database answers")
    assert list(check(wanted(running[0], roots, user="", password="")))[-1].found.startswith("not tried")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"password": "wrong"}, 'does not know the user "shop" with this password in "shop"'),
        ({"user": "somebody"}, 'does not know the user "somebody"'),
        ({"database": "other"}, 'does not know the user "shop" with this password in "other"'),
        ({"host": "vps-9.mongodb.cloudlunacy.test", "guess": 'Did you mean "x"?'}, 'right one. Did you mean "x"?'),
        ({"host": "vps-9.other.test"}, "it has none for this name"),
        ({"host": "127.0.0.1"}, "sends no server name (SNI)"),
        ({"tls": False}, "databases are reached over TLS only"),
        ({"ca_file": ""}, "is of an authority that is not trusted here"),
        ({"ca_file": __file__}, "cannot be used to verify"),
        ({"port": 1}, "nobody listens"),
    ],
)
def test_check_says_what_is_wrong(running: tuple[Front, Doorman], roots: Path, more: dict[str, Any], said: str) -> None:
    """In one sentence, with what to do."""
    assert said in failed(wanted(running[0], roots, **more))[1]


def test_check_says_what_a_closed_connection_may_mean(
    running: tuple[Front, Doorman], database: Mongod, roots: Path
) -> None:
    """The database is down, the address is not on the list, or there are too many connections."""
    one, _ = running
    listed = [{"ipAllowList": {"ranges": ["192.0.2.0/24"]}}, {"connectionLimit": {"amount": 3}}]
    serve(one, database, middlewares=listed)
    spec = route("db", type="mongodb", backends=[{"agent": "vps-1", "port": 1}], middlewares=listed).spec
    try:
        passed, said = failed(wanted(one, roots, route=spec))
        assert passed == ["address", "tcp"]
        assert "address is not on the ipAllowList (192.0.2.0/24), or you have 3 connections" in said
    finally:
        serve(one, database)
    database.stop()
    try:
        nothing = route("db", type="mongodb", backends=[{"agent": "vps-1", "port": 1}]).spec
        assert "the database on vps-1 is down or refuses the front." in failed(wanted(one, roots, route=nothing))[1]
        assert "Either the database on vps-1 is down" in failed(wanted(one, roots))[1]
    finally:
        database.start()


def test_check_waits_for_nobody(roots: Path) -> None:
    """Whoever takes a connection and says nothing, or speaks another language, is told too."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        one = Wanted(HOST, silent.getsockname()[1], ca_file=str(roots), address="127.0.0.1")
        assert "takes the connection and says nothing" in failed(one)[1]
    with backends("http") as (web,):
        one = Wanted(HOST, web.port, ca_file=str(roots), address="127.0.0.1")
        assert "speaks no TLS" in failed(one)[1]
