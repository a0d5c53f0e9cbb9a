"""Databases in containers of a real Docker Engine, with the real mongod: from an item to a login, and their data."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pymongo.errors import OperationFailure

from tests.support.container_machine import containers, settled
from tests.support.database_machine import DatabaseMachine, on_engine, orders
from tests.support.mongod_image import make_mongod_image
from tests.support.networked_engine import NetworkedEngine
from tests.support.parts import require

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def with_mongod(machine: NetworkedEngine) -> NetworkedEngine:
    """The server has an image with mongod."""
    make_mongod_image(machine, "mongod:6.0", require("mongod"))
    return machine


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
