"""``wss://…/api/v1/agents/stream``: who may hold a connection, and the seam between ASGI and the hub.

Everything is decided before the WebSocket is accepted, so that a refusal is an HTTP response with a problem (RFC 9457):
browsers have no business here (any ``Origin`` is refused), then the subprotocol, then the credentials, then room.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from reconciler.agents.hub import Hub
from reconciler.errors import Refused
from reconciler.web.endpoint import Endpoint
from reconciler.web.problem import problem
from reconciler.web.websocket import TRANSPORT
from schemas.session import SUBPROTOCOL

PATH: Final = "/api/v1/agents/stream"


class Identity(Protocol):
    """A caller who proved a key."""

    @property
    def kind(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def thumbprint(self) -> str: ...


class Authenticator(Protocol):
    def authenticate(self, method: str, url: str, headers: Mapping[str, str], now: float) -> Identity:
        """Return who sends the request.

        Raises:
            Refused: 401 or 403.
        """
        ...


class AgentStream:
    """An ASGI application; mount it with ``WebSocketRoute(PATH, AgentStream(...))``."""

    def __init__(self, hub: Hub, authenticator: Authenticator, *, clock: Callable[[], float] = time.time) -> None:
        self._hub = hub
        self._authenticator = authenticator
        self._clock = clock

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The description, and what is answered to who asks for no WebSocket."""
        text = f"Session of an agent, a WebSocket ({SUBPROTOCOL})"
        return (Endpoint("GET", PATH, text, self.session, "agent", status=101),)

    async def session(self, _: Request) -> Response:
        """Refuse HTTP without an upgrade (RFC 9110, 15.5.22)."""
        refused = Refused("This is a WebSocket.", status=426, code="upgrade-required")
        answer = problem(refused)
        answer.headers.update({"Upgrade": "websocket", "Connection": "Upgrade"})
        return answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        identity = await self._open(WebSocket(scope, receive, send))
        if identity is not None:
            await self._hub.serve(identity.name, identity.thumbprint, AsgiConnection(scope, receive, send))

    async def _open(self, websocket: WebSocket) -> Identity | None:
        try:
            identity = self._authorise(websocket)
        except Refused as refusal:
            await websocket.send_denial_response(problem(refusal))
            return None
        await websocket.accept(SUBPROTOCOL)
        return identity

    def _authorise(self, websocket: WebSocket) -> Identity:
        if "origin" in websocket.headers:
            raise Refused("Agents are no browsers.", status=403, code="origin-refused", hint="Send no Origin header.")
        if SUBPROTOCOL not in websocket.scope.get("subprotocols", ()):
            raise Refused(f"This endpoint speaks {SUBPROTOCOL} only.", status=400, code="subprotocol-missing")
        identity = self._authenticator.authenticate("GET", str(websocket.url), websocket.headers, self._clock())
        if identity.kind != "agent":
            raise Refused("Only agents connect here.", status=403, code="not-an-agent")
        self._hub.admit(identity.name, identity.thumbprint)
        return identity


class AsgiConnection:
    """An accepted WebSocket as the hub needs it."""

    __slots__ = ("_abort", "_aborted", "_receive", "_send", "_task", "try_send")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport: Mapping[str, Any] = scope.get("extensions", {}).get(TRANSPORT, {})
        self._receive = receive
        self._send = send
        self.try_send: Callable[[str], bool] = transport.get("try_send", _no_room)
        self._abort: Callable[[], None] | None = transport.get("abort")
        self._aborted = False
        self._task = asyncio.current_task()

    async def send(self, text: str) -> None:
        await self._send({"type": "websocket.send", "text": text})

    async def close(self, code: int, reason: str) -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": reason})

    def abort(self) -> None:
        if self._abort is not None:
            self._abort()
        elif self._task is not None and self._task is not asyncio.current_task() and not self._aborted:
            # Another server: it closes once the application returns, which this brings about.
            self._aborted = True
            self._task.cancel()

    async def receive(self) -> str | bytes | None:
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            if self._aborted and self._task is not None and self._task.uncancel() == 0:
                return None
            raise
        if message["type"] != "websocket.receive":
            return None
        text: str | None = message.get("text")
        return text if text is not None else bytes(message["bytes"])


def _no_room(_text: str) -> bool:
    """Another server: nothing is known of its transport, so every send takes the long way."""
    return False
