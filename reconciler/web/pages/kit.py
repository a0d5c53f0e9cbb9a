"""What every page is made with: who asks, what is drawn, where a form leads, and how a page says no.

A page is an :class:`reconciler.web.endpoint.Endpoint` with ``page=True``. Its handler asks :meth:`Site.caller`
who it is for, puts the API's own models together and gives them to :meth:`Site.render`; a form comes as a plain POST,
is read by :meth:`Site.form` and answered by :meth:`Site.redirect`. What is refused becomes a page as well.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from reconciler.errors import Broken, Refused, Transient
from reconciler.pki.authenticator import Authenticator, Identity, Scope, own_cookie
from reconciler.web.bodies import require_type
from reconciler.web.pages import drawing
from reconciler.web.pages.headers import PRIVATE
from reconciler.web.pages.static import Statics
from reconciler.web.pages.words import filters, local_path
from reconciler.web.problem import HANDLERS, refusal_of
from schemas.text import visible

NAVIGATION: Final = (
    ("/", "Overview"),
    ("/traffic", "Traffic"),
    ("/agents", "Agents"),
    ("/deployments", "Deployments"),
    ("/databases", "Databases"),
    ("/certificates", "Certificates"),
    ("/secrets", "Secrets"),
    ("/revisions", "Revisions"),
    ("/events", "Events"),
)
NOTICE_COOKIE: Final = "__Host-notice"
LONGEST_NOTICE: Final = 300
MAX_FIELDS: Final = 200
_PROGRAMS: Final = ("/api/", "/webhooks/", "/.well-known/", "/static/", "/healthz", "/readyz", "/metrics", "/openapi.")
"""What programs ask for: these answer with problem details."""


class Form(dict[str, str]):
    """The fields of a form, each with what was sent last; :meth:`every` has all that were sent by a name."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        super().__init__(pairs)
        self._pairs = pairs

    def every(self, name: str) -> tuple[str, ...]:
        """Return all values of a field, such as those of checked boxes."""
        return tuple(value for key, value in self._pairs if key == name)


class Site:
    """The dashboard. ``folder`` holds its templates, with ``static`` below."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        folder: Path,
        version: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.authenticator = authenticator
        self.clock = clock
        self.statics = Statics(folder / "static")
        self._templates = Environment(
            loader=FileSystemLoader(folder),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            cache_size=-1,
            finalize=_harmless,
        )
        self._compiled: dict[str, Template] = {}
        self._templates.filters.update(filters(clock))
        self._templates.globals.update(
            static=self.statics.url,
            digest=self.statics.digest,
            version=version,
            navigation=NAVIGATION,
            clock=clock,
            waterfall=drawing.waterfall,
        )

    # --- who asks -----------------------------------------------------------------------------------------------

    def caller(self, request: Request, scope: Scope = "read", team: str | None = None) -> Identity:
        """Return who a page is for.

        Raises:
            Refused: 401, which ``handlers`` answer with the way to log in; 403 for who may not.
        """
        identity = self.authenticator.authenticate(request.method, str(request.url), request.headers, self.clock())
        identity.require(scope, team=team)
        return identity

    def someone(self, request: Request) -> Identity | None:
        """Return who asks where that is known; for pages that are for everybody, and for those that say no."""
        try:
            return self.authenticator.authenticate("GET", str(request.url), request.headers, self.clock())
        except Refused:
            return None

    # --- answers ------------------------------------------------------------------------------------------------

    async def render(
        self,
        request: Request,
        identity: Identity | None,
        template: str,
        *,
        status: int = 200,
        **model: Any,  # noqa: ANN401 - whatever a template shows
    ) -> Response:
        """Return a page. Templates see ``identity``, ``path``, ``query``, ``notice`` and what ``model`` names."""
        notice = unquote(own_cookie(request.headers, NOTICE_COOKIE))[:LONGEST_NOTICE]
        text = (await self._template(template)).render(
            {
                "identity": identity,
                "path": request.url.path,
                "query": request.query_params,
                "notice": notice,
                **model,
            }
        )
        response = Response(text, status, dict(PRIVATE), "text/html; charset=utf-8")
        if notice:
            response.delete_cookie(NOTICE_COOKIE, path="/", secure=True, httponly=True, samesite="strict")
        return response

    async def _template(self, name: str) -> Template:
        """Return a template. Compiling takes a while, during which everybody else goes on."""
        found = self._compiled.get(name)
        if found is None:
            found = self._compiled[name] = await asyncio.to_thread(self._compile, name)
        return found

    def _compile(self, name: str) -> Template:
        for shared in self._templates.list_templates(filter_func=_is_shared):
            self._templates.get_template(shared)
        return self._templates.get_template(name)

    def redirect(self, path: str, notice: str = "") -> Response:
        """Lead on after a form (303), to a page of ours. ``notice`` is shown there once, in a sentence.

        It goes by a cookie: in the address anybody could put words into our mouth by a link.
        """
        response = RedirectResponse(local_path(path), 303, dict(PRIVATE))
        if notice:
            value = quote(visible(notice)[:LONGEST_NOTICE], safe="")
            response.set_cookie(NOTICE_COOKIE, value, max_age=60, secure=True, httponly=True, samesite="strict")
        return response

    # --- forms --------------------------------------------------------------------------------------------------

    async def form(self, request: Request) -> Form:
        """Read a form that a page of ours sent. Lines end as in files, not as browsers send them.

        Raises:
            Refused: 403 ``foreign-origin`` from another site; 415; 413 or 400 where it is too much or no form.
        """
        self.authenticator.require_own_origin(request.method, request.headers)
        require_type(request, "application/x-www-form-urlencoded")
        try:
            pairs = parse_qsl(
                (await request.body()).decode("ascii"), keep_blank_values=True, strict_parsing=False,
                errors="strict", max_num_fields=MAX_FIELDS,
            )  # fmt: skip
        except ValueError:
            raise Refused("The form cannot be read.", status=400, code="bad-form") from None
        return Form([(name, value.replace("\r\n", "\n")) for name, value in pairs])

    # --- saying no ----------------------------------------------------------------------------------------------

    def handlers(self) -> Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]]:
        """For ``Starlette(exception_handlers=…)``: pages for people, problem details for programs."""
        return {kind: self._handler(kind) for kind in (Refused, HTTPException, Transient, Broken, Exception)}

    def _handler(self, kind: type[Exception]) -> Callable[[Request, Exception], Awaitable[Response]]:
        async def answer(request: Request, error: Exception) -> Response:
            if not _is_for_people(request):
                response: Response = await HANDLERS[kind](request, error)
                return response
            return await self.refuse(request, refusal_of(request, error))

        return answer

    async def refuse(self, request: Request, refused: Refused) -> Response:
        """Say no on a page; who is not logged in is led to where one does, and back."""
        if refused.status == 401 and request.method in ("GET", "HEAD") and request.url.path != "/login":
            wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            onward = "" if wanted == "/" else f"?next={quote(wanted, safe='/')}"
            return RedirectResponse(f"/login{onward}", 303, dict(PRIVATE))
        identity = self.someone(request)
        response = await self.render(request, identity, "error.html.j2", status=refused.status, refused=refused)
        if refused.retry_after is not None:
            response.headers["Retry-After"] = str(math.ceil(refused.retry_after))
        return response


def _is_shared(name: str) -> bool:
    """Say whether a template is a part of others."""
    return name.startswith(("_", "base."))


def _is_for_people(request: Request) -> bool:
    return not request.url.path.startswith(_PROGRAMS) and "text/html" in request.headers.get("accept", "")


def _harmless(value: Any) -> Any:  # noqa: ANN401 - whatever a template prints
    """Write marks that turn the direction of writing, and other characters without a shape, as escapes.

    What agents and tenants name so is shown as it is, and never makes the text around it look like another.
    """
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "\n".join(visible(line.replace("\t", "    ")) for line in value.split("\n"))
