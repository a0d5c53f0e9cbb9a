"""The HTTP server: uvicorn with bounds on what a slow or greedy peer can hold.

uvicorn has no time-out for a request head that never ends, nor for a peer that does not read its answer, so its
protocol gets both here. Signals are the application's business, not the server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from reconciler.errors import Broken
from reconciler.web.tls import GOODBYE_SECONDS, HANDSHAKE_SECONDS
from reconciler.web.websocket import WebSocketProtocol

HEAD_SECONDS: Final = 10.0
STALL_SECONDS: Final = 30.0
KEEP_ALIVE_SECONDS: Final = 15
MAX_HEAD: Final = 32 * 1024
BACKLOG: Final = 2048
SHUTDOWN_SECONDS: Final = 5
IDLE_GOODBYE_SECONDS: Final = 0.5
"""At the end, for TLS connections on which nothing is under way: a client that pools them does not look at them."""


class HttpProtocol(H11Protocol):
    """Drops a peer that takes :data:`HEAD_SECONDS` for a request head, or reads nothing for :data:`STALL_SECONDS`.

    The first holds for every request of a connection, and for a body that nobody waits for: uvicorn's keep-alive timer
    ends at the first byte after an answer.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer = _cancelled(self._head_timer)
        self._stall_timer = _cancelled(self._stall_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._has_request() or self.transport.is_closing():
            self._head_timer = _cancelled(self._head_timer)
        else:
            self._expect_head()

    def shutdown(self) -> None:
        is_idle = not self._has_request()
        super().shutdown()
        if is_idle:
            self.loop.call_later(IDLE_GOODBYE_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._stall_timer = _cancelled(self._stall_timer)
        super().resume_writing()

    def _has_request(self) -> bool:
        """Say whether a request is being answered."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._drop_if_headless)

    def _drop_if_headless(self) -> None:
        self._head_timer = None
        if not self._has_request() and not self.transport.is_closing() and self.transport.get_protocol() is self:
            self.transport.abort()


def _cancelled(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel a timer and return what takes its place: none."""
    if timer is not None:
        timer.cancel()
    return None


class Server(uvicorn.Server):
    """uvicorn that leaves signals alone, and gives handshakes of TLS the time that they may take."""

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self._tls = tls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on sockets that are bound already."""
        times = (None, None) if self._tls is None else (HANDSHAKE_SECONDS, GOODBYE_SECONDS)
        self.servers = [
            await asyncio.get_running_loop().create_server(
                self._protocol,
                sock=bound,
                ssl=self._tls,
                backlog=self.config.backlog,
                ssl_handshake_timeout=times[0],
                ssl_shutdown_timeout=times[1],
            )
            for bound in sockets or ()
        ]
        self.started = True

    def _protocol(self) -> asyncio.Protocol:
        protocol = self.config.http_protocol_class
        return protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(app: ASGIApp, tls: ssl.SSLContext | None = None) -> Server:
    """Return a server for sockets that are bound already; plain HTTP where no context is given."""
    options: dict[str, Any] = {
        "http": HttpProtocol,
        "ws": WebSocketProtocol,
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": True,  # from it an agent whose clock is wrong learns the time of the control plane
        "proxy_headers": False,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": SHUTDOWN_SECONDS,
        "h11_max_incomplete_event_size": MAX_HEAD,
        "ws_ping_interval": 20.0,
        "ws_ping_timeout": 20.0,
        "backlog": BACKLOG,
    }
    return Server(uvicorn.Config(app, **options), tls)


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket; port 0 takes a free one.

    Raises:
        Broken: when the address is taken or not ours.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # The protocol by its number: where it is left to be guessed, asyncio does not switch off Nagle's algorithm for
        # what is accepted, and each answer of two parts waits 40 ms for an acknowledgement.
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
        except OSError:
            found.close()
            raise
    except OSError as error:
        raise Broken(f"cannot listen on {host}:{port}: {error.strerror}.", hint="Is it taken? Use --listen.") from None
    return found
