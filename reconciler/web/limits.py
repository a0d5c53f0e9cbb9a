"""Bounds on what a client may send, before anything reads it: headers, and the body by size and by time.

A plain ASGI middleware around the application. Headers that must stand alone may not be sent twice: two parties that
each believe another one of two values is how requests are smuggled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reconciler.errors import Refused
from reconciler.web.problem import problem

MAX_BODY: Final = 64 * 1024
TOO_LARGE: Final = "body-too-large"
MAX_HEADERS: Final = 16 * 1024
MAX_HEADER_COUNT: Final = 64
BODY_SECONDS: Final = 10.0
MAX_DISCARDED: Final = 8 * 1024 * 1024
"""Bytes; many clients write all of a body before they look for an answer."""
DISCARD_SECONDS: Final = 1.0
_ONCE: Final = frozenset({b"authorization", b"cookie", b"dpop", b"host", b"content-length", b"content-type", b"origin"})


class Limits:
    """``bodies`` names other limits by path, for endpoints that need one (such as webhooks); a path that ends with a
    slash counts for all below it. ``refusal`` answers what is too large, so that people get a page.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body: int = MAX_BODY,
        bodies: Mapping[str, int] | None = None,
        body_seconds: float = BODY_SECONDS,
        refusal: Callable[[Request, Exception], Awaitable[Response]] | None = None,
    ) -> None:
        self._app = app
        self._max_body = max_body
        self._bodies = dict(bodies or {})
        self._below = tuple((path, limit) for path, limit in self._bodies.items() if path.endswith("/"))
        self._seconds = body_seconds
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        refused = _bad_headers(scope, limit)
        if refused is None and scope["type"] == "http":
            await self._with_body(scope, receive, send, limit)
        elif refused is None:
            await self._app(scope, receive, send)
        else:
            if scope["type"] == "http":
                await _discard(scope, receive)
            await self._refuse(refused, scope, receive, send)

    def _limit(self, path: str) -> int:
        if path in self._bodies:
            return self._bodies[path]
        return next((limit for above, limit in self._below if path.startswith(above)), self._max_body)

    async def _refuse(self, refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
        if self._refusal is None or scope["type"] != "http" or refused.code != TOO_LARGE:
            await _refuse(refused, scope, receive, send)
            return
        response = await self._refusal(Request(scope), refused)
        response.headers["Connection"] = "close"
        await response(scope, receive, send)

    async def _with_body(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        body = _Body(receive, limit, self._seconds)
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, body.receive, watched)
        except Refused as refused:  # an application without a handler of its own
            if started:
                raise
            if not body.done:
                await _discard(scope, receive)
            await _refuse(refused, scope, receive, send)


class _Body:
    """Counts the bytes of one request's body and the time that they take."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive = receive
        self._left = limit
        self._seconds = seconds
        self._end: float | None = None
        self.done = False

    async def receive(self) -> Message:
        if self.done:
            return await self._receive()
        loop = asyncio.get_running_loop()
        self._end = self._end or loop.time() + self._seconds
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError:
            raise Refused("The body came too slowly.", status=408, code="too-slow") from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _too_large()
        self.done = not message.get("more_body", False)
        return message


def _bad_headers(scope: Scope, limit: int) -> Refused | None:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > MAX_HEADER_COUNT or sum(len(name) + len(value) for name, value in headers) > MAX_HEADERS:
        return Refused("The headers are too large.", status=431, code="headers-too-large")
    seen: set[bytes] = set()
    for name, value in headers:
        if name in _ONCE and name in seen:
            return Refused(f"The header {name.decode()} is sent twice.", status=400, code="repeated-header")
        seen.add(name)
        if name == b"content-length" and (not value.isdigit() or len(value) > 12 or int(value) > limit):
            return _too_large()
    return None


def _too_large() -> Refused:
    return Refused("The body is too large.", status=413, code=TOO_LARGE)


async def _refuse(refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    response = problem(refused)
    response.headers["Connection"] = "close"
    if scope["type"] == "http":
        await response(scope, receive, send)
    elif "websocket.http.response" in scope.get("extensions", {}):
        await send({"type": "websocket.http.response.start", "status": refused.status, "headers": response.raw_headers})
        await send({"type": "websocket.http.response.body", "body": response.body})
    else:
        await send({"type": "websocket.close", "code": 1008})


async def _discard(scope: Scope, receive: Receive) -> None:
    """Read what is still on its way: closing on it would take the answer back (RFC 9112, 9.6). Little, and briefly."""
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    announced = [int(value) for value in lengths if value.isdigit() and len(value) <= 12]
    if any(name == b"expect" for name, _ in scope["headers"]) or (
        lengths and max(announced, default=0) > MAX_DISCARDED
    ):
        return
    discarded, more = 0, True
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while more and discarded <= MAX_DISCARDED:
                message = await receive()
                discarded += len(message.get("body", b""))
                more = message["type"] == "http.request" and message.get("more_body", False)
