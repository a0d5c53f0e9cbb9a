"""Databases in containers of a real Docker Engine, with the real mongod: from an item to a login, and their data."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import OperationFailure
from pymongo.write_concern import WriteConcern

from agent.deployments.service import DeploymentService
from agent.deployments.workload import Key
from schemas.session import Item
from tests.support.container_machine import containers, settled
from tests.support.database_machine import DatabaseMachine, on_engine, orders
from tests.support.mongod_image import make_mongod_image
from tests.support.networked_engine import NetworkedEngine
from tests.support.older_mongods import LIBRARIES, require_older
from tests.support.parts import require
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(300),
]
KEY = Key("shop", "orders")


@pytest.fixture(scope="module")
def with_mongod(machine: NetworkedEngine) -> NetworkedEngine:
    """The server has an image with mongod."""
    make_mongod_image(machine, "mongod:6.0", require("mongod"))
    return machine


@pytest.fixture(scope="module")
def with_older(with_mongod: NetworkedEngine) -> NetworkedEngine:
    """It has images of two older releases, too."""
    for version in ("4.4", "5.0"):
        make_mongod_image(with_mongod, f"mongod:{version}", require_older(version), libraries=LIBRARIES)
    return with_mongod


@pytest.fixture
def host(with_mongod: NetworkedEngine, tmp_path: Path) -> DatabaseMachine:
    return on_engine(with_mongod, tmp_path)


def test_from_an_item_to_a_login(host: DatabaseMachine, machine: NetworkedEngine) -> None:
    """It waits for its certificate; then whoever has the password reads and writes through TLS, and nobody else."""

    async def scenario() -> None:
        async with host.running() as found:
            (first,) = await found.apply((orders(),))
            assert (first.state, first.reason) == ("Progressing", "WaitingForCertificate")
            assert containers(machine) == []
            await asyncio.to_thread(host.issue)
            results = await settled(found, orders())
            assert (results["orders"].state, results["orders"].reason) == ("Applied", "Running"), results
            async with host.client() as client:
                await client.shop.orders.insert_one({"n": 1})
                assert await client.shop.orders.count_documents({}) == 1
            for who in ({"password": "wrong"}, {"user": "root"}):
                async with host.client(**who) as client:
                    with pytest.raises(OperationFailure):
                        await client.shop.orders.find_one()
            async with host.client(user=None) as client:
                with pytest.raises(OperationFailure, match="requires authentication"):
                    await client.shop.orders.find_one()

    machine.inside(scenario)


async def write(host: DatabaseMachine, document: dict[str, Any]) -> None:
    async with host.client() as client:
        await client.shop.orders.with_options(write_concern=WriteConcern(w=1, j=True)).insert_one(document)


async def documents(host: DatabaseMachine) -> list[dict[str, Any]]:
    async with host.client() as client:
        return [one async for one in client.shop.orders.find({}, {"_id": 0}).sort("n")]


async def runs(found: DeploymentService, wanted: Item) -> dict[str, Any]:
    """Roll it out; return what is said."""
    results = await settled(found, wanted)
    assert (results["orders"].state, results["orders"].reason) == ("Applied", "Running"), results
    return results


def test_data_outlives_kills_and_redeploys(host: DatabaseMachine, machine: NetworkedEngine) -> None:
    """kill -9 of mongod, an agent that starts anew, an engine that is restarted, another image and other limits."""
    host.issue()

    async def first() -> None:
        async with host.running() as found:
            await runs(found, orders())
            await write(host, {"n": 1})
            (container,) = containers(machine)
            os.kill(container["State"]["Pid"], signal.SIGKILL)
            await eventually(lambda: containers(machine)[0]["RestartCount"] == 1, 60)
            await runs(found, orders())
            assert await documents(host) == [{"n": 1}]
            await write(host, {"n": 2})

    async def second() -> None:
        async with host.running() as found:
            await runs(found, orders())
            assert await documents(host) == [{"n": 1}, {"n": 2}]
            await runs(found, orders(resources={"memory": "1Gi"}))
            machine.command("tag", "mongod:6.0", "mongod:again")
            await runs(found, orders(mongodb={"image": "mongod:again"}))
            await eventually(lambda: len(containers(machine)) == 1, what="the end of the former one")
            (container,) = containers(machine)
            assert (container["Config"]["Image"], container["HostConfig"]["Memory"]) == ("mongod:again", 0)
            assert await documents(host) == [{"n": 1}, {"n": 2}]

    machine.inside(first)
    machine.shut_down()
    machine.boot()
    machine.inside(second)


def test_the_container_is_shut_in_as_any_other(host: DatabaseMachine, machine: NetworkedEngine) -> None:
    """No secret is in its command line or environment; of the machine it sees what the agent made for it alone."""
    host.issue()

    async def scenario() -> None:
        async with host.running() as found:
            await runs(found, orders())
            (container,) = containers(machine)
            shown = json.dumps(container)
            for secret in (host.passwords["orders/password"], next(iter(host.databases().records.values())).password):
                assert secret not in shown
            config = container["HostConfig"]
            assert config["ReadonlyRootfs"]
            assert config["CapDrop"] == ["ALL"]
            assert container["Config"]["User"] == "999:999"
            home = host.data / "mongodb" / "shop" / "orders"
            binds = {one["Source"]: one["RW"] for one in container["Mounts"] if one["Type"] == "bind"}
            assert binds == {str(home / "tls"): False, str(home / "socket"): True}

    machine.inside(scenario)


def shown(host: DatabaseMachine) -> str:
    """The SHA-256 of the certificate at the port of the machine."""
    context = ssl.create_default_context(cafile=str(host.roots))
    context.check_hostname = False
    with socket.create_connection(("127.0.0.1", host.port), 5) as raw, context.wrap_socket(raw) as tls:
        return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()


def test_a_new_certificate_reaches_the_container(host: DatabaseMachine, machine: NetworkedEngine) -> None:
    """It lies in the directory that mongod sees, and mongod is told: nothing is restarted."""
    host.issue()

    async def scenario() -> None:
        async with host.running() as found:
            await runs(found, orders())
            (before,) = containers(machine)
            former = shown(host)
            await asyncio.to_thread(host.renew)
            await eventually(lambda: shown(host) != former, 60)
            held = host.world.service.held("shop", "orders")
            assert held is not None
            assert shown(host) == held.fingerprint
            (after,) = containers(machine)
            assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])

    machine.inside(scenario)


@pytest.mark.parametrize("policy", ["retain", "delete"])
def test_data_goes_only_when_that_was_said(host: DatabaseMachine, machine: NetworkedEngine, policy: str) -> None:
    """Without the file the container goes; its volume stays, and is found again, unless the policy was to delete it."""
    host.issue()
    wanted = orders(deletionPolicy=policy)

    async def scenario() -> None:
        async with host.running() as found:
            await runs(found, wanted)
            await write(host, {"n": 1})
            found.remembered.released = frozenset({"shop/orders"})
            await settled(found)
            await eventually(lambda: containers(machine) == [], 60)
            if policy == "delete":
                await eventually(lambda: machine.command("volume", "ls", "--quiet").stdout == "", 60)
        async with host.running() as found:
            await runs(found, wanted)
            assert await documents(host) == ([{"n": 1}] if policy == "retain" else [])

    machine.inside(scenario)


def test_a_release_is_upgraded(host: DatabaseMachine, machine: NetworkedEngine, with_older: NetworkedEngine) -> None:
    """5.0 becomes 6.0 with its data and its users; then the data is of 6.0, and there is no way back."""
    del with_older
    host.issue()

    async def scenario() -> None:
        async with host.running() as found:
            await runs(found, orders("5.0"))
            await write(host, {"n": 1})
            await eventually(lambda: held(host) == ("5.0", "5.0.32"), 60)
            await runs(found, orders("6.0"))
            await eventually(lambda: held(host)[0] == "6.0", 60)
            assert held(host)[1].startswith("6.0.")
            assert await documents(host) == [{"n": 1}]
            results = await settled(found, orders("5.0"))
            assert (results["orders"].state, results["orders"].reason) == ("Failed", "UpgradeRefused")
            assert "no way back" in results["orders"].message
            assert await documents(host) == [{"n": 1}]
            (container,) = containers(machine)
            assert container["Config"]["Image"] == "mongod:6.0"

    machine.inside(scenario)


def held(host: DatabaseMachine) -> tuple[str, str]:
    """What the data is known to be of, and which mongod answered last."""
    record = host.databases().records[KEY]
    return record.feature_version, record.ran


def test_a_release_that_is_left_out_is_refused(
    host: DatabaseMachine, machine: NetworkedEngine, with_older: NetworkedEngine
) -> None:
    """By the agent, which goes by the data and leaves what runs alone; and by mongod, when an image is another."""
    del with_older
    host.issue()

    async def scenario() -> None:
        older = orders("5.0", mongodb={"image": "mongod:4.4"})
        async with host.running() as found:
            await runs(found, older)
            await write(host, {"n": 1})
            await eventually(lambda: held(host)[0] == "4.4", 60)
            (before,) = containers(machine)
        async with host.running() as found:  # an agent that knows what is on its disk
            results = await settled(found, orders("6.0"))
            assert results["orders"].reason == "UpgradeRefused"
            assert 'Write version: "5.0" first' in results["orders"].message
            (after,) = containers(machine)
            assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
            results = await settled(found, orders("5.0", mongodb={"image": "mongod:6.0"}))
            assert results["orders"].reason == "UpgradeRefused", results
            assert await documents(host) == [{"n": 1}]
            await runs(found, orders("5.0"))
            assert await documents(host) == [{"n": 1}]

    machine.inside(scenario)
