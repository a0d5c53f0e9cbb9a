"""What each deployment uses, asked of the drivers now and then, and at hand whenever a heartbeat leaves.

An engine that hangs holds up a question, never a heartbeat: what it said last is told until it is ``stale`` seconds
old, then nothing, so that the control plane shows the deployment as unknown instead of as it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from agent.deployments.driver import Driver, DriverError
from agent.deployments.observed import Instance
from agent.deployments.workload import Key
from schemas.observation import DeploymentUsage

log = logging.getLogger(__name__)

_AT_ONCE: Final = 8
"""Questions under way."""


class Running(NamedTuple):
    """The instance of a deployment that serves."""

    driver: Driver
    instance: Instance


@dataclass(frozen=True, slots=True)
class UsageSettings:
    """Times are in seconds."""

    every: float = 15.0
    patience: float = 5.0
    """For one instance."""
    stale: float = 60.0


class UsageGatherer:
    """``running`` returns what serves now. :meth:`usage` never waits."""

    def __init__(
        self,
        running: Callable[[], Iterable[Running]],
        *,
        settings: UsageSettings = UsageSettings(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._running = running
        self._settings = settings
        self._monotonic = monotonic
        self._known: dict[Key, tuple[float, DeploymentUsage]] = {}

    def usage(self) -> tuple[DeploymentUsage, ...]:
        """Return what was said last of each deployment that still serves, without what is stale."""
        oldest = self._monotonic() - self._settings.stale
        return tuple(usage for _, (when, usage) in sorted(self._known.items()) if when >= oldest)

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await self.once()
            await asyncio.sleep(self._settings.every)

    async def once(self) -> None:
        """Ask once about everything that serves."""
        running = list(self._running())
        keys = {one.instance.key for one in running}
        self._known = {key: known for key, known in self._known.items() if key in keys}
        gate = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for one in running:
                group.create_task(self._ask(one, gate), name=f"usage-{one.instance.id[:12]}")

    async def _ask(self, one: Running, gate: asyncio.Semaphore) -> None:
        instance = one.instance
        try:
            async with gate, asyncio.timeout(self._settings.patience):
                stats = await one.driver.stats(instance)
        except (DriverError, TimeoutError, OSError) as error:
            log.debug("what %s uses is not known: %s", instance.id, error)
            return
        except Exception:  # a driver's bug must not end the agent
            log.exception("what %s uses cannot be read", instance.id)
            return
        usage = DeploymentUsage(
            team=instance.key.team,
            name=instance.key.name,
            cpu_seconds=max(0.0, stats.cpu_seconds),
            memory_bytes=max(0, stats.memory_bytes),
            pids=max(0, stats.pids),
            restarts=max(0, instance.restarts),
        )
        self._known[instance.key] = (self._monotonic(), usage)
