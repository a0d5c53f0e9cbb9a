"""The HTTP server: uvicorn with bounds on what a slow or greedy peer can hold.

uvicorn has no time-out for a request head that never ends, so its protocol gets one here: a peer that has not sent a
complete head in time is dropped. Signals are the application's business, not the server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from reconciler.errors import Broken
from reconciler.web.websocket import WebSocketProtocol

HEAD_SECONDS: Final = 10.0
KEEP_ALIVE_SECONDS: Final = 15
MAX_HEAD: Final = 32 * 1024
BACKLOG: Final = 2048
SHUTDOWN_SECONDS: Final = 5


class HttpProtocol(H11Protocol):
    """Drops a peer whose first request head is not complete in :data:`HEAD_SECONDS`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._drop_if_headless)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer.cancel()
        super().connection_lost(exc)

    def _drop_if_headless(self) -> None:
        has_head = getattr(self, "cycle", None) is not None
        if not has_head and not self.transport.is_closing() and self.transport.get_protocol() is self:
            self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn that leaves signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(app: ASGIApp) -> Server:
    """Return a server for sockets that are bound already."""
    options: dict[str, Any] = {
        "http": HttpProtocol,
        "ws": WebSocketProtocol,
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": SHUTDOWN_SECONDS,
        "h11_max_incomplete_event_size": MAX_HEAD,
        "ws_ping_interval": 20.0,
        "ws_ping_timeout": 20.0,
        "backlog": BACKLOG,
    }
    return Server(uvicorn.Config(app, **options))


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket; port 0 takes a free one.

    Raises:
        Broken: when the address is taken or not ours.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        found = socket.socket(family, socket.SOCK_STREAM)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
        except OSError:
            found.close()
            raise
    except OSError as error:
        raise Broken(f"cannot listen on {host}:{port}: {error.strerror}.", hint="Is it taken? Use --listen.") from None
    return found
