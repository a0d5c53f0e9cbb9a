"""uvicorn's WebSocket protocol with what holding thousands of agents needs. Use it as ``uvicorn.Config(ws=...)``.

- No compression is negotiated, whatever is offered: it would cost 50 KiB a connection and let deflate bombs in.
- A refused handshake is answered and closed, whoever refuses it, and is no error of ours.
- A message larger than an agent may send is refused (1009) before it is gathered.
- Applications get the ASGI extension ``cloudlunacy.transport``, for what ASGI has no words for (docs/adr/0008):
  ``try_send(text) -> bool`` writes a message at once, or says that the transport has no room or is closed;
  ``abort()`` drops a peer that does not read.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from typing import TYPE_CHECKING, Any, Final

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from schemas.session import MAX_AGENT_MESSAGE

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

TRANSPORT: Final = "cloudlunacy.transport"


class WebSocketProtocol(WebSocketsSansIOProtocol):
    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = ServerProtocol(max_size=MAX_AGENT_MESSAGE, logger=logging.getLogger("uvicorn.error"))

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated:
            # The first data is a whole head, which the HTTP parser took and this one refuses (a line above 8 KiB).
            # uvicorn would keep the connection for ever, and the refusal to itself.
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:  # else there is no scope and no application
            self.scope["extensions"][TRANSPORT] = {"try_send": self.try_send, "abort": self.transport.abort}

    async def send(self, message: ASGISendEvent) -> None:
        """Send. After a refusal, which is a whole HTTP response, uvicorn would complain of a missing handshake."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True

    def try_send(self, text: str) -> bool:
        """Write one whole text message, unless that would have to wait or the connection is not open."""
        if not self.writable.is_set() or self.close_sent or self.conn.state is not OPEN or self.transport.is_closing():
            return False
        payload = text.encode()
        self.transport.write(_text_header(len(payload)) + payload)
        return True


def _text_header(length: int) -> bytes:
    """A final, unmasked text frame (RFC 6455, 5.2)."""
    if length < 126:
        return bytes((0x81, length))
    if length < 65536:
        return struct.pack("!BBH", 0x81, 126, length)
    return struct.pack("!BBQ", 0x81, 127, length)
