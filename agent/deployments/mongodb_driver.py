"""A driver that runs databases besides what it runs anyway.

It hands everything on to the driver below. Where an instance belongs to a database, it has ready what mongod needs, and
answers the health check itself: nothing in an image could log in, for no password is in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

from agent.deployments.actions import Action, Create, RemoveVolumes
from agent.deployments.driver import Driver, Stats, Written
from agent.deployments.given import Given
from agent.deployments.health import Probe
from agent.deployments.mongodb import Databases
from agent.deployments.mongodb_workload import PROBE
from agent.deployments.observed import Instance, Observed


class DatabaseDriver:
    """A :class:`agent.deployments.driver.Driver` in front of another one."""

    def __init__(self, below: Driver, databases: Databases) -> None:
        self.type = below.type
        self._below = below
        self._databases = databases

    async def observe(self) -> Observed:
        observed = await self._below.observe()
        self._databases.seen(self.type, observed)
        return observed

    async def carry_out(self, action: Action, given: Given) -> None:
        if isinstance(action, Create) and self._databases.is_database(action.key):
            found = await asyncio.to_thread(self._databases.prepare, action.key)
            action = replace(action, directories=found)
        await self._below.carry_out(action, given)
        if isinstance(action, RemoveVolumes):
            await asyncio.to_thread(self._databases.gone, action.key)

    async def run_inside(self, instance: Instance, command: tuple[str, ...], timeout_seconds: float) -> Probe:
        if command == PROBE:
            return await self._databases.probe(instance, timeout_seconds)
        return await self._below.run_inside(instance, command, timeout_seconds)

    def execute(self, instance: Instance, command: tuple[str, ...]) -> AsyncGenerator[Written | int, None]:
        return self._below.execute(instance, command)

    def logs(self, instance: Instance, *, tail: int, follow: bool = False) -> AsyncGenerator[str, None]:
        return self._below.logs(instance, tail=tail, follow=follow)

    async def stats(self, instance: Instance) -> Stats:
        return await self._below.stats(instance)

    async def watch(self, changed: Callable[[], None]) -> None:
        await self._below.watch(changed)

    async def close(self) -> None:
        await self._below.close()
