"""What the fakes share: who is let in, what is kept, and failures that tests ask for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import urlencode

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from reconciler.forges.connection import Access
from reconciler.forges.forge import Forge, Kind, Place
from reconciler.forges.opening import open_forge
from tests.support.waiting import wait_for

TOKEN = "forge-token-of-the-tests"
REPOSITORY = "platform/fleet"
NOW = 1_800_000_000.0
Handler = Callable[[Request], Awaitable[Response]]


@dataclass
class Said:
    """A comment. ``author`` 1 is the token's user, 2 somebody else, -2 the forge's own CI."""

    id: int
    number: int
    body: str
    author: int = 1


@dataclass
class Posted:
    """A status as it was sent, in the forge's words."""

    id: int
    revision: str
    state: str
    description: str
    url: str
    name: str


@dataclass
class Asked:
    """A pull request."""

    number: int
    branch: str
    base: str
    title: str = ""
    body: str = ""
    is_fork: bool = False
    is_open: bool = True


class FakeForge:
    """``failures`` are answered first, one each; ``requests`` counts what came, as ``METHOD /path``."""

    kind: ClassVar[Kind]
    prefix: ClassVar[str]
    page = 2
    """Items of a page at most, so that tests meet several."""

    def __init__(self) -> None:
        self.statuses: list[Posted] = []
        self.pulls: list[Asked] = []
        self.comments: list[Said] = []
        self.requests: list[str] = []
        self.failures: list[Callable[[], Response]] = []
        self.may_ask_who = True
        """Some tokens belong to no user."""
        self.url = "http://127.0.0.1"
        self.repository = REPOSITORY
        """The only one that is there."""
        routes = [
            Route(f"{self.prefix}{path}", self._guarded(handler), methods=[verb])
            for verb, path, handler in self.routes()
        ]
        self.app = Starlette(routes=routes)

    # --- of each kind -------------------------------------------------------------------------------------------

    def routes(self) -> list[tuple[str, str, Handler]]:
        raise NotImplementedError

    def authorised(self, request: Request) -> bool:
        raise NotImplementedError

    def unauthorised(self) -> Response:
        raise NotImplementedError

    def missing(self) -> Response:
        raise NotImplementedError

    # --- for tests ----------------------------------------------------------------------------------------------

    @property
    def api(self) -> str:
        return f"{self.url}{self.prefix}"

    @property
    def place(self) -> Place:
        return Place(self.kind, self.api, REPOSITORY)

    def forge(self, token: str = TOKEN) -> Forge:
        """Our adapter for it, without a network."""
        transport = httpx.ASGITransport(self.app)
        return open_forge(self.place, Access(lambda: token), transport=transport, clock=lambda: NOW)

    def ask(self, branch: str, base: str = "main", **more: Any) -> Asked:
        self.pulls.append(asked := Asked(len(self.pulls) + 1, branch, base, **more))
        return asked

    def say(self, number: int, body: str, author: int = 2) -> Said:
        self.comments.append(said := Said(len(self.comments) + 101, number, body, author))
        return said

    def writes(self) -> list[str]:
        return [one for one in self.requests if not one.startswith("GET ")]

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Answer on loopback; yields the URL of the API."""
        server = uvicorn.Server(
            uvicorn.Config(self.app, host="127.0.0.1", port=0, log_level="error", lifespan="off", ws="none")
        )
        thread = Thread(target=server.run, name=f"fake-{self.kind}", daemon=True)
        thread.start()
        try:
            wait_for(lambda: server.started, 30, what="the forge")
            port = server.servers[0].sockets[0].getsockname()[1]
            self.url = f"http://127.0.0.1:{port}"
            yield self.api
        finally:
            server.should_exit = True
            thread.join(20)

    # --- inside -------------------------------------------------------------------------------------------------

    def _guarded(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            self.requests.append(f"{request.method} {request.url.path}")
            if self.failures:
                return self.failures.pop(0)()
            if not self.authorised(request):
                return self.unauthorised()
            if not self.is_here(request):
                return self.missing()
            return await handler(request)

        return answer

    def is_here(self, request: Request) -> bool:
        named = [request.path_params[name] for name in ("owner", "name") if name in request.path_params]
        return not named or "/".join(named) == self.repository

    def linked(self, request: Request, items: list[Any], size: str) -> Response:
        """A page of a list, with the Link header of RFC 8288."""
        page = int(request.query_params.get("page", "1"))
        most = min(self.page, int(request.query_params.get(size, "30")))
        part = items[(page - 1) * most : page * most]
        headers = {}
        if page * most < len(items):
            query = urlencode({**request.query_params, "page": page + 1})
            headers["Link"] = f'<https://elsewhere.invalid{request.url.path}?{query}>; rel="next", <x>; rel="last"'
        return JSONResponse(part, headers=headers)

    def of(self, number: int) -> list[Said]:
        return [one for one in self.comments if one.number == number]

    def pull(self, number: int) -> Asked | None:
        return next((one for one in self.pulls if one.number == number), None)

    def same(self, branch: str, base: str) -> Asked | None:
        own = [one for one in self.pulls if one.is_open and not one.is_fork]
        return next((one for one in own if (one.branch, one.base) == (branch, base)), None)
