"""What every answer says about itself that has no page's policy of its own: it is data, and no part of a page.

A plain ASGI middleware. Browsers open an answer of the API too, in a tab or in a frame of another site; so it says that
nothing in it is loaded or run, that it is shown in no frame, and that its type is what it says (OWASP REST Security).
"""

from __future__ import annotations

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DATA: Final = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class AnswerHeaders:
    """Adds :data:`DATA` to answers that have no Content-Security-Policy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def described(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if "content-security-policy" not in headers:
                    headers.update(DATA)
            await send(message)

        await self._app(scope, receive, described if scope["type"] == "http" else send)
