"""Removes what an agent runs when it leaves its machine: its containers, programs and networks, and nobody else's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent import settings
from agent.credentials import AgentFile
from agent.deployments.actions import Remove, RemoveNetwork, RemoveVolumes
from agent.deployments.driver import Driver, DriverAbsent, DriverError
from agent.deployments.firewall import IpTables
from agent.deployments.given import NOTHING
from agent.deployments.local_engine import LocalEngine
from agent.deployments.memory import MemoryFiles
from agent.deployments.process_driver import ProcessDriver
from agent.installing.plan import Cannot


def drivers_of(data: Path) -> Sequence[Driver]:
    """Return what may have something of the agent of this directory. Raises Unusable."""
    agent, said = AgentFile.load(data).name, settings.load(data)
    engine = [] if said.socket is None else [LocalEngine(said.socket, agent, firewall=IpTables())]
    return [*engine, ProcessDriver(data, agent)]


async def remove_all(data: Path, *, volumes: bool, drivers: Sequence[Driver] | None = None) -> None:
    """Remove every instance and network, and with ``volumes`` their data.

    Raises:
        Cannot: where something could not be removed; what is left is found again by the next attempt.
    """
    have_run = {memory.type for memory in MemoryFiles(data, "").load(0.0).values()}
    for driver in drivers_of(data) if drivers is None else drivers:
        try:
            observed = await driver.observe()
            for instance in observed.instances:
                await driver.carry_out(Remove(instance), NOTHING)
            for key in sorted(observed.networks):
                await driver.carry_out(RemoveNetwork(key), NOTHING)
            for key in sorted(observed.volumes) if volumes else ():
                await driver.carry_out(RemoveVolumes(key), NOTHING)
        except DriverError as error:
            if isinstance(error, DriverAbsent) and not (error.may_come_back and driver.type in have_run):
                continue
            raise Cannot(
                f"{error.message} What the agent runs there was not removed; the rest stays as it is."
            ) from None
        finally:
            await driver.close()
