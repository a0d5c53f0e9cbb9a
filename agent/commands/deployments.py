"""Commands about what a deployment runs: ``logs``, ``restart`` and ``exec``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Final, Protocol

from agent.commands.handling import CommandFailed, Handler, Output
from agent.deployments.driver import Driver
from agent.deployments.observed import Instance
from agent.deployments.restarts import Standing
from agent.deployments.workload import InvalidItem, Key, key_of
from schemas.session import Command

USUAL_TAIL: Final = 100
MAX_TAIL: Final = 10_000
"""Lines that are told of what was written before."""
_LOOK_SECONDS: Final = 0.1


class Deployments(Protocol):
    """:class:`agent.deployments.service.DeploymentService`."""

    def instance(self, key: Key) -> tuple[Driver, Instance] | None:
        """Return what serves, or else the newest that there is; None where there is nothing."""
        ...

    def masked(self, key: Key) -> Callable[[str], str]:
        """Return what takes the values of a deployment's secrets out of a text."""
        ...

    async def restart(self, key: Key, command: str) -> None:
        """Have a fresh instance made; a second time for the same command changes nothing.

        Raises:
            DriverError: where the deployment is not wanted here, or the disk does not take it.
        """
        ...

    def standing(self, key: Key, command: str) -> Standing:
        """Say how far the restart of a command is."""
        ...


class DeploymentCommands:
    """``may_execute`` says whether the fleet lets people run programs in what a team deploys."""

    def __init__(self, deployments: Deployments, may_execute: Callable[[str], bool] = lambda _team: False) -> None:
        self._deployments = deployments
        self._may_execute = may_execute

    def handlers(self) -> Mapping[str, Handler]:
        return {"logs": self.logs, "restart": self.restart, "exec": self.execute}

    async def logs(self, command: Command, output: Output) -> None:
        """Tell what was written: the last ``tail`` lines, and with ``follow`` whatever comes."""
        key, driver, instance = self._found(command)
        tail, follow = _tail(command), command.arguments.get("follow") == "true"
        masked = self._deployments.masked(key)
        async with aclosing(driver.logs(instance, tail=tail, follow=follow)) as lines:
            if follow:
                await self._follow(lines, masked, output, tail)
                raise CommandFailed("InstanceGone", "What was followed has ended; a newer one may be there.")
            async for line in lines:
                await output.write(f"{masked(line)}\n")

    @staticmethod
    async def _follow(
        lines: AsyncGenerator[str, None], masked: Callable[[str], str], output: Output, tail: int
    ) -> None:
        """What was written before may wait; what is written meanwhile is left out where nobody takes it in time."""
        told = 0
        async for line in lines:
            if told < tail:
                told += 1
                await output.write(f"{masked(line)}\n")
            else:
                output.offer(masked(line))

    async def restart(self, command: Command, output: Output) -> None:
        """Have a fresh instance of what is wanted take the place of the one that serves, and tell each step."""
        key = _key(command)
        await self._deployments.restart(key, command.id)
        said = ""
        while True:
            standing = self._deployments.standing(key, command.id)
            if standing.state == "failed":
                raise CommandFailed(standing.reason, standing.message)
            text = f"{standing.reason}: {standing.message}" if standing.message else standing.reason
            if standing.state == "under way" and standing.reason and text != said:
                said = text
                await output.write(f"{text}\n")
            if standing.state == "done":
                await output.write("Restarted.\n")
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def execute(self, command: Command, output: Output) -> int | None:
        """Run a program where the deployment runs."""
        key, driver, instance = self._found(command)
        if not self._may_execute(key.team):
            text = f'The fleet does not let people run programs in what team "{key.team}" deploys.'
            raise CommandFailed("NotAllowed", text)
        if not command.words or not command.words[0]:
            raise CommandFailed("InvalidCommand", "There is no program to run.")
        if not instance.up:
            raise CommandFailed("NotRunning", f"{key} does not run just now.")
        async with aclosing(driver.execute(instance, command.words)) as written:
            async for part in written:
                if isinstance(part, int):
                    return part
                await output.write(part.text, part.stream)
        return None

    def _found(self, command: Command) -> tuple[Key, Driver, Instance]:
        key = _key(command)
        found = self._deployments.instance(key)
        if found is None:
            raise CommandFailed("NotFound", f"There is no instance of {key} on this agent.")
        return key, *found


def _key(command: Command) -> Key:
    try:
        return key_of(command.item)
    except InvalidItem:
        raise CommandFailed("NotFound", "The command names no deployment.") from None


def _tail(command: Command) -> int:
    text = command.arguments.get("tail", str(USUAL_TAIL))
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise CommandFailed("InvalidCommand", "The number of lines is no number.")
    return min(int(text), MAX_TAIL)
