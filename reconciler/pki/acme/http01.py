"""``http-01`` (RFC 8555, 8.3): a table of answers, and the application that says them.

The application is served on a loopback listener, which the fronts reach through one reserved router. It knows no other
path than the exact tokens that are presented at the moment, reads no body and keeps nothing of a request.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from reconciler.errors import Rejected, Transient
from reconciler.pki.acme.solver import Challenge

PREFIX: Final = "/.well-known/acme-challenge/"
MAX_ANSWERS: Final = 10_000
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Http01:
    """The table; as a solver it fills it, as an ASGI application it answers from it."""

    type: Final = "http-01"

    def __init__(self) -> None:
        self._answers: dict[str, bytes] = {}
        """By path."""

    async def present(self, challenge: Challenge) -> None:
        """Answer for one more token.

        Raises:
            Rejected: the token is none (RFC 8555, 8.3: base64url).
            Transient: more tokens are presented at once than there can be.
        """
        if _TOKEN.fullmatch(challenge.token) is None:
            raise Rejected(
                f"The ACME server gave {challenge.domain} a token that is no base64url.", reason="AcmeAnswerMalformed"
            )
        if len(self._answers) >= MAX_ANSWERS:
            raise Transient("Too many http-01 answers are presented at once.", reason="AcmeBusy")
        self._answers[PREFIX + challenge.token] = challenge.key_authorization.encode()

    async def cleanup(self, challenge: Challenge) -> None:
        """Answer no more."""
        self._answers.pop(PREFIX + challenge.token, None)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request: 200 for a token that is presented, 404 for every other path, 405 for other methods."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            status, body = self._answer(scope["method"], scope["path"])
            headers = [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
            ]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _answer(self, method: str, path: str) -> tuple[int, bytes]:
        answer = self._answers.get(path)
        if answer is None:
            return 404, b"not found\n"
        if method not in ("GET", "HEAD"):
            return 405, b"method not allowed\n"
        return 200, answer


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
