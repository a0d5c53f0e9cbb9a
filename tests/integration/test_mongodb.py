"""A whole installation with a real mongod: what the commands print works, and what is wrong is said in time.

Each connection string is the one that ``cloudlunacy mongodb uri`` prints, with one thing changed: its time-out of 1.5 s
is what bounds the faults that only the driver finds.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError, ServerSelectionTimeoutError

from reconciler.mongodb.connection_string import SELECTION_MS
from reconciler.mongodb.doorman import SENTENCES
from reconciler.pki.keystore import KeyStore
from reconciler.pki.sealing import seal
from reconciler.traefik import sock_diag
from reconciler.traefik.sock_diag import Unable
from tests.support import documents
from tests.support.fleet import Installation, installation, web
from tests.support.mongod import PASSWORD, USER, Mongod, mongod
from tests.support.pairs import FakeAuthority
from tests.support.waiting import wait_for
from tests.unit.mongodb.test_places import deployment

HOST = f"vps-1.mongodb.{documents.DOMAIN}"
CONNECT = ("--connect", "127.0.0.1")


@dataclass
class World:
    """The installation, the database of vps-1, and the route to it."""

    one: Installation
    database: Mongod

    @property
    def port(self) -> int:
        assert self.one.front is not None
        return self.one.front.ports["mongodb"]

    @cached_property
    def uri(self) -> str:
        """What the command prints on the machine of the control plane."""
        found = self.one.cli("mongodb", "uri", "orders", "--show-password")
        assert found.returncode == 0, found.stderr
        return found.stdout.strip()

    def check(self, *words: str) -> tuple[int, str]:
        found = self.one.cli("mongodb", "check", *words)
        return found.returncode, found.stdout + found.stderr

    def route(self, **spec: Any) -> bytes:
        backends = [{"agent": "vps-1", "port": self.database.port}]
        return documents.document(
            "Route", "db", {"type": "mongodb", "backends": backends, "transport": {"scheme": "https"}, **spec}
        )

    def in_service(self) -> None:
        """The route is there, as at the beginning."""
        self.one.live({"routes/shop/db.yaml": self.route()}, "Put the route back")


def repository(recipient: str) -> dict[str, bytes | str | None]:
    """A fleet whose database has a user with a sealed password."""
    secret = documents.document("Secret", "db", {"sealed": {"password": seal(PASSWORD, [recipient])}})
    return {
        "fleet.yaml": documents.fleet(recipients=[recipient]),
        "agents/vps-1.yaml": documents.agent("vps-1"),
        "agents/vps-2.yaml": documents.agent("vps-2"),
        "secrets/shop/db.yaml": secret,
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """mongod has the certificate that vps-1 got when it enrolled."""
    folder = tmp_path_factory.mktemp("world")
    with installation(folder / "one", start=False) as one:
        recipient = KeyStore(one.data / "keys").recipient()
        first = one.push(repository(recipient), "Start")
        one.start()
        assert one.status_wait(first)["state"] == "Converged"
        enrolled = one.enrol("vps-1")
        assert enrolled.returncode == 0, enrolled.stderr
        files = one.agent_data("vps-1") / "certificate"
        pem = (files / "key.pem").read_text() + (files / "chain.pem").read_text()
        with mongod(folder / "mongod", pem=pem, roots=(files / "bundle.pem").read_text()) as database:
            found = World(one, database)
            one.repo.push_on_top({
                "deployments/shop/orders.yaml": deployment("orders", "vps-1", port=database.port),
                "routes/shop/db.yaml": found.route(),
                "routes/shop/web.yaml": web("web", 8081),
            })  # fmt: skip
            revision = one.repo.tip()
            assert revision is not None
            assert one.status_wait(revision)["state"] == "Converged"
            yield found


@pytest.fixture
def by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name of the fleet leads to the front, as DNS would have it."""
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda name, *rest, **kw: real("127.0.0.1" if str(name).endswith(".test") else name, *rest, **kw),
    )


def client(uri: str) -> MongoClient[dict[str, Any]]:
    return MongoClient(uri)


@pytest.mark.usefixtures("by_name")
def test_the_printed_connection_string_works(world: World) -> None:
    """Insert and read with nothing but it, through Traefik, with TLS verified on both sides."""
    with client(world.uri) as connected:
        orders = connected.get_default_database().orders
        orders.insert_one({"n": 1})
        assert orders.find_one({"n": 1}, {"_id": 0}) == {"n": 1}
    code, said = world.check("orders", *CONNECT)
    assert (code, [line.split()[0] for line in said.splitlines()]) == (0, ["address", "tcp", "tls", "login"])


Change = Callable[[World, str], str]
UNKNOWN = HOST.replace("vps-1", "vps-9")
WRONG: dict[str, tuple[Change, type[PyMongoError], str]] = {
    "user": (lambda _, uri: uri.replace(f"{USER}:", "somebody:"), OperationFailure, "Authentication failed."),
    "password": (lambda _, uri: uri.replace(f"{USER}:", f"{USER}:x"), OperationFailure, "Authentication failed."),
    "name": (lambda _, uri: uri.replace(HOST, UNKNOWN), OperationFailure, SENTENCES["unknown"]),
    "plain TCP": (
        lambda world, uri: uri.replace("tls=true", "tls=false").replace(f"&tlsCAFile={world.one.ca}", ""),
        OperationFailure,
        SENTENCES["plain"],
    ),
    "no server name": (
        lambda _, uri: (
            uri.replace(HOST, "127.0.0.1") + "&tlsAllowInvalidHostnames=true&tlsAllowInvalidCertificates=true"
        ),
        OperationFailure,
        SENTENCES["unnamed"],
    ),
    "an address": (
        lambda _, uri: uri.replace(HOST, "127.0.0.1"),
        ServerSelectionTimeoutError,
        "certificate verify failed",
    ),
    "authority": (
        lambda world, uri: uri.replace(str(world.one.ca), str(_another_authority(world))),
        ServerSelectionTimeoutError,
        "certificate verify failed",
    ),
}


def _another_authority(world: World) -> Path:
    path = world.one.folder / "another.pem"
    path.write_text(FakeAuthority().bundle)
    return path


@pytest.mark.usefixtures("by_name")
@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_by_the_driver(world: World, what: str) -> None:
    """At once where a server speaks, and after 1.5 s where the driver itself finds nobody to trust."""
    change, kind, sentence = WRONG[what]
    uri = world.uri
    wrong = change(world, uri)
    assert wrong != uri
    assert f"serverSelectionTimeoutMS={SELECTION_MS}" in wrong
    with client(wrong) as connected, pytest.raises(kind) as caught:
        connected.get_default_database().orders.insert_one({"n": 2})
    assert sentence in str(caught.value)


CHECKED = {
    "user": 'does not know the user "somebody"',
    "password": f'does not know the user "{USER}" with this password',
    "name": f'Did you mean "{HOST}"?',
    "plain TCP": "databases are reached over TLS only",
    "no server name": "sends no server name (SNI)",
    "an address": "sends no server name (SNI)",
    "authority": "is of an authority that is not trusted here",
}


@pytest.mark.parametrize("what", CHECKED)
def test_what_is_wrong_is_said_by_check(world: World, what: str) -> None:
    """In a sentence with what to do; the deadline of the whole check is 1.9 s."""
    wrong = WRONG[what][0](world, world.uri)
    # without --ca-file the roots of the connection string count
    code, said = world.check(
        wrong, *CONNECT, *(("--ca-file", str(_another_authority(world))) if what == "authority" else ())
    )
    assert code == 1
    assert CHECKED[what] in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("by_name")
def test_after_a_restart_the_doors_are_where_they_were(world: World) -> None:
    """Nothing is published for it."""
    before = world.one.published.read_bytes()
    world.one.restart()
    wrong = world.uri.replace(HOST, UNKNOWN)
    with client(wrong) as connected, pytest.raises(OperationFailure, match="No database answers to this name"):
        connected.admin.command("ping")
    assert world.one.metric("cloudlunacy_mongodb_wrong_connections_total") > 0
    assert world.one.published.read_bytes() == before


def test_check_knows_that_the_database_or_the_front_is_down(world: World) -> None:
    """And says which."""
    world.database.stop()
    try:
        code, said = world.check("orders", *CONNECT)
        assert (code, "the database on vps-1 is down or refuses the front" in said) == (1, True)
    finally:
        world.database.start()
    front = world.one.front
    assert front is not None
    front.stop()
    try:
        code, said = world.check("orders", *CONNECT, "--port", str(world.port))  # its API cannot be asked either
        assert (code, f"nobody listens at {HOST} port {world.port}" in said) == (1, True)
    finally:
        front.start()


@pytest.mark.usefixtures("by_name")
def test_check_knows_who_may_come(world: World) -> None:
    """A route with an IP allow list that the caller is not on."""
    listed = world.route(middlewares=[{"ipAllowList": {"ranges": ["192.0.2.0/24"]}}])
    world.one.live({"routes/shop/db.yaml": listed}, "Let nobody in")
    try:
        code, said = world.check("orders", *CONNECT)
        assert (code, "your address is not on the ipAllowList (192.0.2.0/24)" in said) == (1, True)
    finally:
        world.in_service()


def live_connections(world: World) -> int:
    """Connections of this machine to the database."""
    with suppress(OSError):
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        return sum(
            line.split()[2].endswith(f":{world.database.port:04X}") and line.split()[3] == "01" for line in lines
        )
    return 0


def require_severing() -> None:
    try:
        sock_diag.probe()
    except Unable as error:
        pytest.skip(f"connections cannot be ended here: {error}")


def _said(document: str, after: str, more: str) -> str:
    assert after in document
    return document.replace(after, after + more, 1)


REVOKED: dict[str, Callable[[World], dict[str, bytes | str | None]]] = {
    "the route is removed": lambda _: {"routes/shop/db.yaml": None},
    "the agent is quarantined": lambda world: {
        "agents/vps-1.yaml": _said(world.one.repo.show("agents/vps-1.yaml"), '"spec": {', '"state": "quarantined", ')
    },
    "others may come": lambda world: {
        "routes/shop/db.yaml": world.route(middlewares=[{"ipAllowList": {"ranges": ["192.0.2.0/24"]}}])
    },
}


@pytest.mark.usefixtures("by_name")
@pytest.mark.parametrize("why", REVOKED)
def test_live_connections_end_with_what_led_there(world: World, why: str) -> None:
    """Although Traefik keeps them; the timeline says so, and with the former files clients come back."""
    require_severing()
    files = REVOKED[why](world)
    before = {path: world.one.repo.show(path) for path in files}
    with client(world.uri) as connected:
        orders = connected.get_default_database().orders
        orders.insert_one({"n": 3})
        assert live_connections(world) > 0
        world.one.live(files, why)
        try:
            wait_for(lambda: live_connections(world) == 0, 10, what="no connection to the database")
            with pytest.raises((AutoReconnect, OperationFailure)):
                orders.insert_one({"n": 4})
            events = world.one.ask("/events", limit=1000)["events"]
            assert "ConnectionsEnded" in {one["type"] for one in events}
            assert world.one.metric("cloudlunacy_connections_ended_total") > 0
        finally:
            world.one.live(dict(before), "Undo")
    with client(world.uri) as connected:
        connected.get_default_database().orders.insert_one({"n": 5})


@pytest.mark.usefixtures("by_name")
def test_somebody_may_end_live_connections(world: World) -> None:
    """By command, on the machine of the front; the driver comes again, because the route is still there."""
    require_severing()
    with client(world.uri) as connected:
        orders = connected.get_default_database().orders
        orders.insert_one({"n": 6})
        ended = world.one.cli("mongodb", "disconnect", "orders")
        assert ended.returncode == 0, ended.stderr
        assert int(ended.stdout.split()[0]) > 0
        orders.insert_one({"n": 7})


def test_a_published_file_has_no_password(world: World) -> None:
    """Neither the front's file nor the log nor the timeline."""
    events = json.dumps(world.one.ask("/events", limit=1000), ensure_ascii=False)
    for text in (world.one.published.read_text(), world.one.log(), events):
        assert PASSWORD not in text


@pytest.mark.usefixtures("by_name")
def test_live_connections_end_with_an_agent_that_is_locked_out(world: World) -> None:
    """By one command; after it nobody reaches the database, whatever password they have."""
    require_severing()
    with client(world.uri) as connected:
        orders = connected.get_default_database().orders
        orders.insert_one({"n": 8})
        revoked = world.one.cli("agent", "revoke", "vps-1", "--quarantine", "--reason", "stolen", "--yes")
        assert revoked.returncode == 0, revoked.stderr
        wait_for(lambda: live_connections(world) == 0, 20, what="no connection to the database")
        with pytest.raises((AutoReconnect, OperationFailure)):
            orders.insert_one({"n": 9})
