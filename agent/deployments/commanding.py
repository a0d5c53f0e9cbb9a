"""What commands of people may do with the deployments of this agent: look at an instance, and have a fresh one made.

:class:`Commanding` is the :class:`agent.commands.deployments.Deployments` of a
:class:`agent.deployments.service.DeploymentService`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from agent.deployments.driver import Driver, DriverError
from agent.deployments.lane import Lane
from agent.deployments.observed import Instance
from agent.deployments.restarts import Restarts, Standing
from agent.deployments.rollout import Memory
from agent.deployments.workload import Key

log = logging.getLogger(__name__)

_REMEMBERED: Final = 256
"""Restarts whose failure is told to whoever asks."""


class Service(Protocol):
    """What is needed of the service."""

    @property
    def restarts(self) -> Restarts: ...

    def lane_of(self, key: Key) -> Lane | None:
        """Return the lane of a deployment that is wanted."""
        ...

    def memory_of(self, key: Key) -> Memory: ...

    def want_again(self, key: Key) -> None:
        """Look at once: what is wanted of a deployment is another instance by now."""
        ...


class Commanding:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._failed: OrderedDict[str, Standing] = OrderedDict()
        """By command."""
        self._saving = asyncio.Lock()

    def instance(self, key: Key) -> tuple[Driver, Instance] | None:
        """Return what serves; else the newest one that runs, or has run."""
        lane = self._service.lane_of(key)
        if lane is None or lane.observed is None:
            return None
        decision, found = lane.decisions.get(key), lane.observed.of(key)
        serving = None if decision is None else decision.serving
        order = sorted(found, key=lambda one: (one.slot == serving, one.up, one.started))
        return (lane.driver, order[-1]) if order else None

    def masked(self, key: Key) -> Callable[[str], str]:
        """Return what takes the values of a deployment's secrets out of a text."""
        lane = self._service.lane_of(key)
        return (lambda text: text) if lane is None else lane.masked(key)

    async def restart(self, key: Key, command: str) -> None:
        """Have a fresh instance made of what is wanted.

        Raises:
            DriverError: ``NotFound`` where nothing is wanted, ``NotPersisted`` where the disk does not take it.
        """
        lane = self._service.lane_of(key)
        if lane is None:
            raise DriverError("NotFound", f"{key} is not to run on this agent.")
        restarts, wanted = self._service.restarts, lane.desired[key]
        former = restarts.command(wanted)
        if former == command or command in self._failed:
            return
        restarts.ask(wanted, command)
        try:
            await self._save()
        except OSError as error:
            restarts.ask(wanted, former)
            raise DriverError("NotPersisted", f"The disk of the agent refused it: {error.strerror}.") from None
        self._service.want_again(key)

    def standing(self, key: Key, command: str) -> Standing:
        """Say how far the restart of a command is."""
        if command in self._failed:
            return self._failed[command]
        lane = self._service.lane_of(key)
        if lane is None:
            return Standing("failed", "Superseded", "It is not wanted here any more.")
        desired, decision, trouble = lane.desired[key], lane.decisions.get(key), lane.troubles.get(key)
        if desired.restart != command:
            return Standing("failed", "Superseded", "Another version or another restart took its place.")
        if trouble is not None:
            return Standing("under way", trouble.reason, trouble.message)
        if decision is None:
            return Standing("under way")
        good = self._service.memory_of(key).good
        is_good = good is not None and good.digest == desired.digest
        if decision.state == "Applied" and is_good and not decision.actions:  # what was before it is gone
            return Standing("done", decision.reason, decision.message)
        failed = decision.state == "Failed"
        return Standing("failed" if failed else "under way", decision.reason, decision.message)

    async def look(self) -> None:
        """Let a restart that failed be no part of what is wanted any more. Call it after each look at everything."""
        restarts = self._service.restarts
        for key in filter(self._came_to_nothing, restarts.keys):
            lane = self._service.lane_of(key)
            assert lane is not None
            desired, memory = lane.desired[key], self._service.memory_of(key)
            assert memory.failure is not None
            assert memory.good is not None
            text = f"{memory.failure.message} The former instance runs on."
            self._failed[desired.restart] = Standing("failed", memory.failure.reason, text)
            if len(self._failed) > _REMEMBERED:
                self._failed.popitem(last=False)
            restarts.ask(desired, memory.good.restart)
            self._service.want_again(key)
            try:
                await self._save()
            except OSError as error:  # an agent that starts anew would try it once more
                log.warning("that a restart failed cannot be kept: %s", error.strerror)

    def _came_to_nothing(self, key: Key) -> bool:
        """Say whether a restart failed, of a version that was good before it."""
        lane, memory = self._service.lane_of(key), self._service.memory_of(key)
        if lane is None or memory.failure is None or memory.good is None:
            return False
        desired = lane.desired[key]
        return bool(
            desired.restart
            and desired.restart != memory.good.restart
            and memory.failure.trial == desired.trial
            and memory.good.version == desired.version
        )

    async def _save(self) -> None:
        async with self._saving:
            await asyncio.to_thread(self._service.restarts.save)
