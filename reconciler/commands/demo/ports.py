"""Which ports the demo takes: the usual ones, and free ones in place of those that are taken."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from reconciler.errors import Broken

HOST: Final = "127.0.0.1"
FRONT: Final[Mapping[str, int]] = {
    "web": 8000,
    "websecure": 8443,
    "mongodb": 27017,
    "events": 10001,
    "traefik": 8080,
    "control plane": 7300,
}
"""What clients and people reach. All but the last are entry points of Traefik, by name."""
BEHIND: Final = (8081, 8082, 8083, 8084, 8091, 9001, 9101, 9102, 27117)
"""What the example's routes lead to, and what its deployments listen at; its README lists them."""
_GRANTED: Final = range(9200, 9999)
"""The example's fleet grants these to every team, so a moved backend may lie here."""
_ATTEMPTS: Final = 200


@dataclass(frozen=True, slots=True)
class Ports:
    """``front``: name → port. ``behind``: port of the example → the port that is used for it."""

    front: Mapping[str, int]
    behind: Mapping[int, int]

    def address(self, name: str) -> str:
        """Return HOST:PORT of an entry point, Traefik's API (``traefik``) or the control plane."""
        return f"{HOST}:{self.front[name]}"

    def url(self, name: str) -> str:
        return f"{'https' if name == 'control plane' else 'http'}://{self.address(name)}"

    @property
    def moved(self) -> dict[int, int]:
        """Ports of the example that are not the ones used."""
        return {usual: port for usual, port in self.behind.items() if usual != port}

    def notices(self) -> list[str]:
        """Say which usual ports were taken."""
        moved = [(f"{name} ({FRONT[name]})", port) for name, port in self.front.items() if port != FRONT[name]]
        moved += [(str(usual), port) for usual, port in self.moved.items()]
        return [f"port {usual} is taken; {port} stands in for it" for usual, port in moved]


def choose_ports(*, usual: bool = True) -> Ports:
    """Choose ports that are free now; with ``usual`` the documented ones where possible.

    Raises:
        Broken: when none are free.
    """
    with ExitStack() as held:  # each stays open until all are chosen, so that none is chosen twice
        front = {name: _take(held, [port] if usual else [], [0]) for name, port in FRONT.items()}
        behind = {port: _take(held, [port] if usual else [], random.sample(_GRANTED, _ATTEMPTS)) for port in BEHIND}
    return Ports(front, behind)


def taken(ports: Ports) -> list[int]:
    """Return those of the ports that somebody listens on."""
    with ExitStack() as held:
        return [port for port in (*ports.front.values(), *ports.behind.values()) if _bind(held, port) is None]


def _take(held: ExitStack, *choices: list[int]) -> int:
    for port in (port for ports in choices for port in ports):
        found = _bind(held, port)
        if found is not None:
            return found
    raise Broken(f"no port is free on {HOST}.")


def _bind(held: ExitStack, port: int) -> int | None:
    probe = held.enter_context(socket.socket())
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port whose connections just ended is free
    try:
        probe.bind((HOST, port))
        probe.listen(1)
    except OSError:
        return None
    return int(probe.getsockname()[1])
