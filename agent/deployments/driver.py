"""The seam to what runs instances: the container engine, or the supervisor of processes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Literal, NamedTuple, Protocol

from agent.deployments.actions import Action
from agent.deployments.given import Given
from agent.deployments.health import Probe
from agent.deployments.observed import Instance, Observed


class DriverError(Exception):
    """Something could not be done. The text is for people, without secrets.

    ``retryable``: it may work later although nothing was changed here. ``engine``: the engine itself is away, which
    says nothing about the instance.
    """

    def __init__(self, reason: str, message: str, *, retryable: bool = False, engine: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retryable = retryable or engine
        self.engine = engine


class DriverAbsent(DriverError):
    """Nothing is on this machine that the driver could work with, and there may never be.

    ``may_come_back``: something is there that does not serve this user now, and may have before.
    """

    def __init__(self, message: str, *, may_come_back: bool = False) -> None:
        super().__init__("EngineUnavailable", message, engine=True)
        self.may_come_back = may_come_back


class Stats(NamedTuple):
    """What an instance uses now."""

    cpu_seconds: float
    memory_bytes: int
    pids: int


class Written(NamedTuple):
    """A part of what a program wrote."""

    text: str
    stream: Literal["stdout", "stderr"] = "stdout"


class Driver(Protocol):
    """All calls may be cancelled at any point and made again: each leaves what a later call finds its way from."""

    type: str
    """The ``type`` of deployments that it runs."""

    async def observe(self) -> Observed:
        """Return what there is of this agent. Raises DriverError."""
        ...

    async def carry_out(self, action: Action, given: Given) -> None:
        """Do it; ``given`` are the values of secrets for an instance that is created. Raises DriverError."""
        ...

    async def run_inside(self, instance: Instance, command: tuple[str, ...], timeout_seconds: float) -> Probe:
        """Run a probe's command where the instance runs; exit code 0 is good. Raises DriverError."""
        ...

    def execute(self, instance: Instance, command: tuple[str, ...]) -> AsyncGenerator[Written | int, None]:
        """Run a program where the instance runs, without input; yield what it writes, and its exit code at the end.

        Closing the generator ends the program. Raises DriverError.
        """
        ...

    def logs(self, instance: Instance, *, tail: int, follow: bool = False) -> AsyncGenerator[str, None]:
        """Yield what it wrote, line by line. Raises DriverError."""
        ...

    async def stats(self, instance: Instance) -> Stats:
        """Say what it uses. Raises DriverError."""
        ...

    async def watch(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` whenever something may be different, until cancelled."""
        ...

    async def close(self) -> None: ...
