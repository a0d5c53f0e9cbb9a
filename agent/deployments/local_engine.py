"""The container engine of this machine, which may come later than the agent, and the addresses that it publishes at."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from agent.deployments.docker_engine import DockerEngine
from agent.deployments.driver import DriverAbsent, DriverError
from agent.deployments.firewall import Firewall
from agent.deployments.observed import Observed
from agent.deployments.shared_directories import NOTHING_SHARED, Shared

EVERYWHERE: Final = ("0.0.0.0",)  # noqa: S104  what is declared is meant to be reached
_LOOK_SECONDS: Final = 2.0


class LocalEngine(DockerEngine):
    """Says that it is absent as long as nobody listens at its socket, or this user may not use it.

    ``publish``: fixed addresses.
    """

    def __init__(
        self,
        path: Path,
        agent: str,
        *,
        firewall: Firewall,
        publish: tuple[str, ...] = (),
        shared: Shared = NOTHING_SHARED,
    ) -> None:
        super().__init__(f"unix://{path}", agent, firewall=firewall, publish_on=publish or EVERYWHERE, shared=shared)
        self._path = path
        self._fixed = bool(publish)

    def reached_at(self, address: str) -> None:
        """Publish at this address from now on, which is where fronts reach the agent, if it is one of this machine."""
        if not self._fixed:
            self._publish_on = (address,) if is_local(address) else EVERYWHERE

    async def keep_away(self) -> None:
        """Have containers kept away from this machine. Raises DriverError where that is impossible."""
        await self._firewall.ensure()

    async def observe(self) -> Observed:
        try:
            return await super().observe()
        except DriverError as error:
            absent = absence(self._path) if error.engine else None
            if absent is None:
                raise
        raise absent

    async def watch(self, changed: Callable[[], None]) -> None:
        while absence(self._path) is not None:  # noqa: ASYNC110  a file says nothing by itself
            await asyncio.sleep(_LOOK_SECONDS)
        changed()
        await super().watch(changed)


def absence(path: Path) -> DriverAbsent | None:
    """Say why nobody can be asked at a socket; None where somebody listens, who may still not answer."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return DriverAbsent(f"There is no container engine at {path}.")
        except ConnectionRefusedError:
            return DriverAbsent(f"No container engine listens at {path}.", may_come_back=True)
        except PermissionError:
            return DriverAbsent(f"The container engine at {path} may not be used by this user.", may_come_back=True)
        except OSError:  # such as one that is too busy to take the connection at once
            return None
    return None


def is_there(path: Path) -> bool:
    """Say whether there is such a file, as far as this user may know."""
    try:
        return path.exists()
    except OSError:
        return False


def is_local(address: str) -> bool:
    """Say whether something can listen at this IPv4 address here; names and other families are no."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            socket.inet_aton(address)
            probe.bind((address, 0))
        except OSError:
            return False
    return True
