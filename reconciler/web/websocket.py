"""uvicorn's WebSocket protocol with what holding thousands of agents needs. Use it as ``uvicorn.Config(ws=...)``.

- No compression is negotiated, whatever is offered: it would cost 50 KiB a connection and let deflate bombs in.
- A message larger than an agent may send is refused (1009) before it is gathered.
- Applications get the ASGI extension ``cloudlunacy.transport``: ``send`` without the layers of middleware in between,
  and ``abort``, because ASGI has no way to drop a peer that does not read (docs/adr/0008).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.http11 import Request
from websockets.server import ServerProtocol

from schemas.session import MAX_AGENT_MESSAGE

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

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:  # else there is no scope and no application
            self.scope["extensions"][TRANSPORT] = {"send": self.send, "abort": self.transport.abort}
