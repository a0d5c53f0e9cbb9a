"""Pages in memory, asked as a browser asks: the real site and templates, over the store and keys of the API."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import httpx
from starlette.applications import Starlette

from reconciler.errors import Refused
from reconciler.package_data import data_directory
from reconciler.web.application import BODIES
from reconciler.web.endpoint import Endpoint, routes_of
from reconciler.web.limits import Limits
from reconciler.web.pages.headers import PRIVATE
from reconciler.web.pages.kit import Site
from tests.support.tokens import ISSUER
from tests.unit.web.asking import Asked, WaxControl, asked

EVERYTHING = ("read", "plan", "approve", "enrol", "operate", "write", "exec")
HTML = {"Accept": "text/html,application/xhtml+xml"}


class Part(Protocol):
    def endpoints(self) -> tuple[Endpoint, ...]: ...


class Visit:
    """``site`` is what pages are made with. Whoever asks may do ``scopes``; without any nobody is logged in."""

    def __init__(self, one: Asked, parts: Callable[[Visit], Sequence[Part]]) -> None:
        self.asked = one
        self.site = Site(
            authenticator=one.authenticator, folder=data_directory("templates") / "dashboard", clock=one.clock
        )
        table = [endpoint for part in (self.site.statics, *parts(self)) for endpoint in part.endpoints()]
        handlers = dict(self.site.handlers())
        routed = Starlette(routes=routes_of(table), exception_handlers=handlers)
        self.app = Limits(routed, bodies=BODIES, refusal=handlers[Refused])

    async def get(self, path: str, *scopes: str, **headers: str) -> httpx.Response:
        """Ask for a page; with everything that a token may be good for unless scopes are named."""
        return await self.send("GET", path, self._who(scopes) | headers)

    async def post(self, path: str, fields: dict[str, str], *scopes: str, origin: str = ISSUER) -> httpx.Response:
        """Send a form as a page of ours does."""
        headers = {"Origin": origin, "Content-Type": "application/x-www-form-urlencoded"}
        return await self.send("POST", path, self._who(scopes) | headers, content=urlencode(fields))

    async def stranger(self, path: str, method: str = "GET", **options: Any) -> httpx.Response:
        """Ask without being logged in."""
        return await self.send(method, path, {}, **options)

    async def send(self, method: str, path: str, headers: dict[str, str], **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=ISSUER) as client:
            answer = await client.request(method, path, headers=HTML | headers, **options)
        if answer.headers.get("content-type", "").startswith("text/html"):
            assert PRIVATE.items() <= dict(answer.headers.items() | _as_written(answer)).items()
        return answer

    def _who(self, scopes: tuple[str, ...]) -> dict[str, str]:
        return self.asked.bearer(*(scopes or EVERYTHING))


def _as_written(answer: httpx.Response) -> set[tuple[str, str]]:
    """Headers come in small letters; those that matter here are compared by the names that we write."""
    return {(name, answer.headers[name]) for name in PRIVATE if name in answer.headers}


def visit(
    data: Path,
    parts: Callable[[Visit], Sequence[Part]],
    scenario: Callable[[Visit], Awaitable[object]],
    control: WaxControl | None = None,
) -> None:
    """Run a scenario with pages of one's own."""

    async def main() -> None:
        async with asked(data, control) as one:
            await scenario(Visit(one, parts))

    asyncio.run(main())


def text_of(answer: httpx.Response) -> str:
    """Return what a person reads, each run of spaces as one; entities stay as they are."""
    body = re.sub(r"<(script|style)\b.*?</\1>", "", answer.text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body)).strip()
