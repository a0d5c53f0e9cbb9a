"""What the agent keeps right in a running database: users, passwords, certificates; and that data outlives kills."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pymongo.errors import OperationFailure
from pymongo.write_concern import WriteConcern

from agent.deployments.mongodb_files import DatabaseFiles
from agent.deployments.mongodb_workload import PROBE
from agent.sealing import Sealer
from schemas.session import ItemResult
from tests.support.database_process import KEY, DatabaseProcess
from tests.support.service_world import leaf
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.timeout(180),
]


@pytest.fixture
def one(tmp_path: Path) -> DatabaseProcess:
    return DatabaseProcess(tmp_path)


async def may_log_in(one: DatabaseProcess, password: str, **more: str) -> bool:
    async with one.client(password, **more) as client:
        try:
            await client.shop.orders.find_one()
        except OperationFailure:
            return False
        return True


async def may_write(one: DatabaseProcess, database: str, **more: str) -> bool:
    async with one.client(**more) as client:
        try:
            await client[database].orders.insert_one({})
        except OperationFailure:
            return False
        return True


async def may_not_write(one: DatabaseProcess) -> bool:
    return not await may_write(one, "shop")


def said(one: DatabaseProcess) -> ItemResult:
    base = ItemResult(id="Deployment/shop/orders", state="Applied", reason="Running")
    return one.databases.result(KEY, base)


def test_a_password_follows_its_secret(one: DatabaseProcess) -> None:
    """Without a restart: the old one is refused, the new one works, open connections and data go on."""

    async def scenario() -> None:
        async with one.running(), one.client() as open_one:
            await open_one.shop.orders.insert_one({"n": 1})
            former = one.passwords["orders/password"]
            one.passwords = {"orders/password": "second"}
            _: bool = await eventually(partial(may_log_in, one, "second"), 10)
            assert not await may_log_in(one, former)
            assert await open_one.shop.orders.count_documents({}) == 1

    asyncio.run(scenario())


def test_users_are_exactly_those_that_are_declared(one: DatabaseProcess) -> None:
    """Others go, whoever made them; roles are as written; nothing is changed where nothing is different."""
    root = {"name": "boss", "role": "root", "password": {"name": "orders", "key": "password"}}
    one.users = (*one.users, root)

    async def scenario() -> None:
        async with one.running():
            password = one.passwords["orders/password"]
            async with one.client(username="boss", authSource="admin") as boss:
                await boss.shop.command("createUser", "guest", pwd="guest", roles=["read"])
                assert await may_log_in(one, "guest", username="guest")
                one.users = (
                    {**one.users[0], "role": "read"},
                    {**one.users[0], "name": "late", "database": "late"},
                )
                one.want()
            # they are changed one after the other
            _: bool = await eventually(partial(not_logged_in, one, "guest", username="guest"), 20)
            _ = await eventually(partial(not_logged_in, one, password, username="boss", authSource="admin"), 20)
            _ = await eventually(partial(may_write, one, "late", username="late", authSource="late"), 20)
            _ = await eventually(partial(may_not_write, one), 20)
            assert await may_log_in(one, password, username="late", authSource="late") is False, "of another database"
            assert await may_log_in(one, password)

    asyncio.run(scenario())


def test_a_user_that_somebody_makes_goes_without_another_declaration(one: DatabaseProcess) -> None:
    """It is looked for again and again, and not only when something else is declared."""
    root = {"name": "boss", "role": "root", "password": {"name": "orders", "key": "password"}}
    one.users = (*one.users, root)

    async def scenario() -> None:
        async with one.running():
            await eventually(lambda: one.databases.databases[KEY].standing is not None, 60)
            async with one.client(username="boss", authSource="admin") as boss:
                await boss.shop.command("createUser", "guest", pwd="guest", roles=["read"])
                _: bool = await eventually(partial(not_logged_in, one, "guest", username="guest"), 20)
                assert await may_log_in(one, one.passwords["orders/password"])

    asyncio.run(scenario())


async def not_logged_in(one: DatabaseProcess, password: str, **more: str) -> bool:
    return not await may_log_in(one, password, **more)


def test_data_and_users_outlive_kills(one: DatabaseProcess) -> None:
    """kill -9 of mongod, and an agent that knows only what is on its disk; the record gives no password away."""

    async def scenario() -> None:
        async with one.running(), one.client() as client:
            journalled = client.shop.orders.with_options(write_concern=WriteConcern(w=1, j=True))
            await journalled.insert_one({"n": 1})
        one.restart_agent()
        async with one.running(), one.client() as client:
            assert await client.shop.orders.find_one({}, {"_id": 0}) == {"n": 1}
            assert (said(one).state, said(one).reason) == ("Applied", "Running")
        home = one.databases.files.home(KEY)
        password = one.databases.records[KEY].password
        assert password not in (home / "record.json").read_text()
        assert (home.stat().st_mode & 0o777, (home / "record.json").stat().st_mode & 0o777) == (0o700, 0o600)

    asyncio.run(scenario())


def test_what_data_it_is_is_kept_before_users_are_made(one: DatabaseProcess) -> None:
    """So nobody ever writes to data of which an agent that starts anew would say that nobody was in it."""
    passwords, one.passwords = one.passwords, {}

    async def scenario() -> None:
        one.start()
        tending = asyncio.create_task(one.databases.run())
        try:
            await eventually(lambda: said(one).reason == "SecretsMissing", 40)
            tending.cancel()
            await asyncio.gather(tending, return_exceptions=True)
            one.restart_agent()
            record = one.databases.records[KEY]
            assert (record.feature_version, record.ran[:4]) == ("6.0", "6.0.")
            one.version = "5.0"
            one.want()
            assert said(one).reason == "UpgradeRefused"
            one.version, one.passwords = "6.0", passwords
            one.see()
            async with one.tended():
                assert await may_log_in(one, passwords["orders/password"])
        finally:
            one.stop()

    asyncio.run(scenario())


def test_a_database_of_somebody_else_is_said_to_be(one: DatabaseProcess) -> None:
    """Where what the agent kept is lost, it gets no entry, touches nothing and says so."""

    async def scenario() -> None:
        async with one.running():
            pass
        (one.databases.files.home(KEY) / "record.json").unlink()
        one.restart_agent()
        one.start()
        task = asyncio.create_task(one.databases.run())
        try:
            await eventually(lambda: said(one).reason == "NotTheAgents", 60)
            assert one.databases.databases[KEY].instance is not None
            probe = await one.databases.probe(one.see(), 5)
            assert not probe.good
        finally:
            task.cancel()
            one.stop()

    asyncio.run(scenario())


def shown(one: DatabaseProcess) -> str:
    """The SHA-256 of the certificate that mongod shows."""
    context = ssl.create_default_context(cafile=str(one.databases.files.roots(KEY)))
    context.check_hostname = False
    with socket.create_connection(("127.0.0.1", one.port), 5) as raw, context.wrap_socket(raw) as tls:
        return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()


def test_a_new_certificate_is_shown_without_a_restart(one: DatabaseProcess) -> None:
    """mongod is told as soon as it lies there; connections that are open go on."""

    async def scenario() -> None:
        async with one.running(), one.client() as client:
            await client.shop.orders.insert_one({"n": 1})
            before = await asyncio.to_thread(shown, one)
            await asyncio.to_thread(one.renew)
            after = leaf(one.data / "services" / "shop" / "orders").fingerprint(hashes.SHA256()).hex()
            assert after != before
            await eventually(lambda: shown(one) == after)
            assert await client.shop.orders.count_documents({}) == 1

    asyncio.run(scenario())


def test_the_health_check_is_a_login(one: DatabaseProcess) -> None:
    """It is good where mongod answers through TLS to the agent's user, and says what is wrong where not."""

    async def scenario() -> None:
        async with one.running():
            instance = one.see()
            assert (await one.databases.probe(instance, 5)).good
            made = one.want()
            assert made.spec.health_check is not None
            assert made.spec.health_check.command is not None
            assert made.spec.health_check.command.command == PROBE
            one.stop()
            probe = await one.databases.probe(instance, 5)
            assert (probe.good, "does not answer" in probe.detail) == (False, True)

    asyncio.run(scenario())


def test_what_is_kept_is_of_this_agent_alone(one: DatabaseProcess) -> None:
    """With another key nothing of it can be opened."""

    async def scenario() -> None:
        async with one.running():
            pass

    asyncio.run(scenario())
    assert DatabaseFiles(one.data, Sealer(ec.generate_private_key(ec.SECP256R1()))).load() == {}


def test_looking_after_databases_ends_when_it_is_asked_to(one: DatabaseProcess) -> None:
    """At whatever moment: the driver of databases would swallow it while it closes a connection."""

    async def scenario() -> None:
        async with one.running():
            for step in range(40):
                one.restart_agent()
                one.see()
                task = asyncio.create_task(one.databases.run())
                await asyncio.wait({task}, timeout=step * 0.004)
                task.cancel()
                done, _ = await asyncio.wait({task}, timeout=5)
                assert done, f"cancelled after {step * 4} ms"

    asyncio.run(scenario())
