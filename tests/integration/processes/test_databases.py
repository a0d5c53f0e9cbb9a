"""Databases that are processes of the machine, with the real mongod, confined as every other program."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo.errors import OperationFailure
from pymongo.write_concern import WriteConcern

from agent.deployments.process_driver import ProcessDriver, ProcessSettings
from agent.deployments.process_machine import look
from tests.support.database_machine import DatabaseMachine, orders
from tests.support.deployment_agent import AGENT
from tests.support.parts import require
from tests.support.ports import free_port
from tests.support.process_agent import end_all, settled

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(look().lacking), reason=look().lacking),
]
JOURNALLED = WriteConcern(w=1, j=True)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[DatabaseMachine]:
    mongod = require("mongod")
    settings = ProcessSettings(readable=(str(mongod.parent),))
    found = DatabaseMachine(
        tmp_path, lambda data: ProcessDriver(data, AGENT, settings), "process", port=free_port(), mongod=str(mongod)
    )
    yield found
    end_all(found.data)


def test_from_an_item_to_a_login_and_back(host: DatabaseMachine) -> None:
    """As in a container; data is there after a redeploy and for the next agent, and goes only when that was said."""
    wanted = orders(image=False, port=host.port, resources={"memory": "1Gi"})
    redeployed = orders(image=False, port=host.port, resources={"memory": "2Gi"}, deletionPolicy="delete")

    async def scenario() -> None:
        async with host.running() as found:
            await asyncio.to_thread(host.issue)
            results = await settled(found, wanted)
            assert (results["orders"].state, results["orders"].reason) == ("Applied", "Running"), results
            async with host.client() as client:
                await client.shop.orders.with_options(write_concern=JOURNALLED).insert_one({"n": 1})
            async with host.client(password="wrong") as client:
                with pytest.raises(OperationFailure, match="Authentication failed"):
                    await client.shop.orders.find_one()
        async with host.running() as found:
            results = await settled(found, redeployed)
            assert (results["orders"].state, results["orders"].reason) == ("Applied", "Running"), results
            async with host.client() as client:
                assert await client.shop.orders.find_one({}, {"_id": 0}) == {"n": 1}
            found.remembered.released = frozenset({"shop/orders"})
            await settled(found)

    asyncio.run(scenario())
