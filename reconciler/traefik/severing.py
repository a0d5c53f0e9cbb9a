"""Ends live connections to backends that clients may no longer reach, because Traefik itself never does.

It is done once every front has loaded the generation without the route, so that whoever comes again finds none. The
connection that is ended is the one from the front to the backend; Traefik then closes that of the client. It works for
fronts in the network namespace of this process, on this machine.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable, Iterable
from typing import Final, Literal

from reconciler.desired.severed import lost_ways
from reconciler.desired.state import State
from reconciler.errors import Broken, Transient
from reconciler.observability.logs import get_logger
from reconciler.observability.mongodb_metrics import MongoDBMetrics
from reconciler.store.protocols import Event, EventStore
from reconciler.traefik import sock_diag
from reconciler.traefik.sock_diag import Peer, Unable

log = get_logger(__name__)

REMAINS: Final = "connections that were open stay open until one side ends them; restart Traefik to end them now"


class Severing:
    """Called when every front has loaded a generation. What happened is an event."""

    def __init__(self, events: EventStore, metrics: MongoDBMetrics, clock: Callable[[], float] = time.time) -> None:
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self.elsewhere: Callable[[str], Iterable[str]] = lambda _: ()
        """Where a backend (``host:port``, as git has it) was really reached."""

    async def confirmed(self, before: State, after: State) -> None:
        """End what came by ways that ``after`` has no more. Raises nothing of its own: nothing would be better."""
        lost = lost_ways(before, after)
        if not lost:
            return
        backends = tuple(dict.fromkeys([*lost, *(actual for one in lost for actual in self.elsewhere(one))]))
        where = ", ".join(backends[:5]) + (f" and {len(backends) - 5} more" if len(backends) > 5 else "")
        try:
            count = await asyncio.to_thread(sever, backends)
        except Unable as error:
            text = f"connections to {where} cannot be ended: {error}; {REMAINS}"
            self._metrics.remain()
            log.warning("connections cannot be ended", backends=list(backends), error=str(error))
            await self._tell("ConnectionsRemain", "warning", text, after.revision)
            return
        if count:
            self._metrics.ended(count)
            log.info("connections ended", backends=list(backends), count=count)
            text = f"{count} connections to {where} were ended: what led there is no longer in service"
            await self._tell("ConnectionsEnded", "info", text, after.revision)

    async def _tell(self, kind: str, severity: Literal["info", "warning"], message: str, revision: str) -> None:
        try:
            await self._events.append(Event(self._clock(), kind, severity, f"revision/{revision}", message, revision))
        except (Transient, Broken) as error:
            log.warning("an event is lost", type=kind, message=message, error=str(error))


def sever(backends: Iterable[str]) -> int:
    """End every connection of this machine to one of ``backends`` (``host:port``); return how many. Blocks.

    Raises:
        Unable: when the kernel refuses.
    """
    return sock_diag.destroy({peer for backend in backends for peer in _peers(backend)})


def _peers(backend: str) -> Iterable[Peer]:
    host, _, port = backend.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        log.warning("a backend has no address, so its connections are not found", backend=backend)
        return ()
    return {(ipaddress.ip_address(one[4][0]), int(one[4][1])) for one in found}
