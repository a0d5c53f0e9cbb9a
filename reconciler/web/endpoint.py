"""One table of endpoints, from which the routes and the OpenAPI document are made, so that they agree.

Before a handler of the API is called, what its row says has been checked: that the caller takes what is answered, and
that the query has known parameters in their form. Who the caller is, and what it may, the handler asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.errors import Refused
from reconciler.pki.authenticator import Scope
from reconciler.web.parameters import Parameter, check_query, parameter_of

Handler = Callable[[Request], Awaitable[Response]]
AnswerHeader = Literal["ETag", "Location", "Retry-After"]
PROBLEM_MEDIA: Final = "application/problem+json"
PROGRAMS: Final = "/api/"
"""Below it is what programs ask for; what the rows say of it is checked."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``scope``: what the caller's credentials must include; None where nobody is asked, or the handler asks."""

    method: str
    path: str
    summary: str
    handler: Handler
    scope: Scope | None = None
    request: type[BaseModel] | None = None
    response: type[BaseModel] | None = None
    query: Mapping[str, str | Parameter] | None = None
    """Parameter → what it does, or its whole description."""
    status: int = 200
    also: Mapping[int, str] | None = None
    """Further answers that are no problem, of the same shape: status → what it means."""
    media: str = "application/json"
    """Of the answer; what comes line by line has the ``response`` on each line."""
    proof: bool = False
    """The caller proves a key without having an access token."""
    anybody: bool = False
    """Any caller who is known, whatever it may do."""
    page: bool = False
    """It answers people with HTML, or is what a page is made of; the OpenAPI document leaves it out."""
    tags: tuple[str, ...] = ()
    """Groups of the API that it belongs to; without them the first word of its path after the version."""
    team: bool = False
    """The scope may be had for the team that it is about, or be limited to it; else it must be for everything."""
    problems: Mapping[int, str] | None = None
    """Problems of its own that it answers with, besides those that its kind has: status → when."""
    headers: tuple[AnswerHeader, ...] = ()
    """Of its answers. With ``ETag`` who sends If-None-Match may be told 304."""
    takes: Mapping[str, Mapping[str, Any]] | None = None
    """Media type → JSON Schema of the body, where that is no ``request`` in JSON."""
    example: Mapping[str, Any] | None = None
    """A body that could be sent."""

    @property
    def parameters(self) -> dict[str, Parameter]:
        """What may stand in the query."""
        return {name: parameter_of(name, said) for name, said in (self.query or {}).items()}


def routes_of(endpoints: Sequence[Endpoint]) -> list[Route]:
    """Return Starlette's routes for a table: one for each path, with all its methods, so that 405 names them all."""
    paths: dict[str, dict[str, Endpoint]] = {}
    for one in endpoints:
        paths.setdefault(one.path, {})[one.method] = one
    return [Route(path, _dispatcher(methods), methods=list(methods)) for path, methods in paths.items()]


def _dispatcher(methods: Mapping[str, Endpoint]) -> Handler:
    served = {method: _checked(one) for method, one in methods.items()}

    async def dispatch(request: Request) -> Response:
        return await served["GET" if request.method == "HEAD" else request.method](request)

    return dispatch


def _checked(one: Endpoint) -> Handler:
    known, media = one.parameters, (one.media, PROBLEM_MEDIA)

    async def serve(request: Request) -> Response:
        request.scope["endpoint"] = one.handler  # by it others know which row this was
        if one.path.startswith(PROGRAMS) and not one.page:
            _require_acceptable(request, media)
            check_query(request.query_params, known)
        return await one.handler(request)

    return serve


def _require_acceptable(request: Request, media: Sequence[str]) -> None:
    """Refuse who takes nothing of what is answered (RFC 9110, 12.5.1); of weights only 0 counts.

    Raises:
        Refused: 406.
    """
    accepted = ",".join(request.headers.getlist("accept"))
    if not accepted:
        return
    for part in accepted.split(","):
        wanted, _, weight = part.replace(" ", "").lower().partition(";")
        if weight not in ("q=0", "q=0.0") and any(_fits(wanted, one) for one in media):
            return
    hint = "Leave the header Accept out, or send */*."
    raise Refused(f"The answer is {media[0]}.", status=406, code="not-acceptable", hint=hint)


def _fits(wanted: str, media: str) -> bool:
    return wanted in ("*/*", media) or (wanted.endswith("/*") and media.startswith(wanted[:-1]))
