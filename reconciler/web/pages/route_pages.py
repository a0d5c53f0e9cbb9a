"""``/routes/new``: a form, what it would do, and the commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from reconciler.changes.documents import put_document
from reconciler.changes.service import Changes
from reconciler.desired.edits import EditConflict
from reconciler.errors import Refused
from reconciler.pki.authenticator import Identity
from reconciler.steps.passing import Published
from reconciler.web.endpoint import Endpoint
from reconciler.web.pages.changing import Changing, change_of
from reconciler.web.pages.kit import Form, Site
from reconciler.web.pages.route_form import BACKENDS, TLS_MODES, RouteForm, field_of, read_form
from schemas.changes_api import Change
from schemas.problem import Problem

PATH: Final = "/routes/new"
SUGGESTED: Final = 500
"""Names that a field suggests."""


class RoutePages:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(self, site: Site, changes: Changes, published: Callable[[], Published]) -> None:
        self._site = site
        self._changes = changes
        self._changing = Changing(site, changes)
        self._published = published

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("GET", PATH, "A new route", self.new, "write", page=True),
            Endpoint("POST", PATH, "Check and commit a new route", self.create, "write", page=True),
        )

    async def new(self, request: Request) -> Response:
        """Draw the form; what the address says stands in its fields."""
        identity = self._site.caller(request)
        teams = self._teams(identity)
        said = {name: value for name, value in request.query_params.items() if len(value) <= 253}
        if len(teams) == 1:
            said.setdefault("team", teams[0])
        return await self._form(request, identity, RouteForm(said))

    async def create(self, request: Request) -> Response:
        """Check the fields, then the file as CI would, then show what it does; the last step commits it."""
        form = await self._site.form(request)
        identity = self._site.caller(request)
        found = read_form(form, self._teams(identity))
        key = found.key
        if found.wrong or key is None:
            return await self._form(request, identity, found)
        identity.require("write", team=key.team)
        try:
            text = put_document(key.path, None, found.document())
        except EditConflict as error:
            raise Refused(str(error), status=422, code="edit-conflict") from None
        message = form.get("message", "") or f"Add route {key.team}/{key.name}"
        change = change_of(key.path, text, message=message, expected="")
        carried = Form([*form.items(), ("path", key.path)])
        if form.get("do") == "commit":
            return await self._changing.commit(request, identity, change, carried, title="New route", back=PATH)
        return await self._previewed(request, identity, change, carried, found)

    async def _previewed(
        self, request: Request, identity: Identity, change: Change, form: Form, found: RouteForm
    ) -> Response:
        try:
            check = await self._changes.check(change, identity)
        except Refused as refused:
            taken = {**found.wrong, "name": "There is a route of this name already."}
            if refused.status != 412:
                raise
            return await self._form(request, identity, RouteForm(found.values, taken))
        if check.blocking:
            return await self._form(request, identity, found, problems=check.blocking, text=change.edits[0].text or "")
        return await self._changing.preview(request, identity, change, form, title="New route", back=PATH)

    async def _form(
        self,
        request: Request,
        identity: Identity,
        found: RouteForm,
        *,
        problems: tuple[Problem, ...] = (),
        text: str = "",
    ) -> Response:
        teams, lines = self._teams(identity), tuple(text.splitlines())
        wrong, elsewhere = dict(found.wrong), []
        for one in problems:
            name = field_of(one, lines)
            if name and name not in wrong:
                wrong[name] = f"{one.message} {one.hint}".strip()
            else:
                elsewhere.append(one)
        state = self._published().state
        agents = sorted(key.name for key in state.served if key.kind == "Agent")[:SUGGESTED]
        deployments = sorted({key.name for key in state.served if key.kind == "Deployment" and key.team in teams})[
            :SUGGESTED
        ]
        return await self._site.render(
            request,
            identity,
            "route_new.html.j2",
            status=422 if wrong or elsewhere else 200,
            said=found.values,
            wrong=wrong,
            problems=elsewhere,
            lines={(one.file, one.line): lines[one.line - 1] for one in elsewhere if 0 < one.line <= len(lines)},
            teams=teams,
            agents=agents,
            deployments=deployments,
            rows=range(1, BACKENDS + 1),
            tls_modes=TLS_MODES,
            domain=state.fleet.spec.domain if state.fleet is not None else "",
        )

    def _teams(self, identity: Identity) -> tuple[str, ...]:
        fleet = self._published().state.fleet
        if fleet is None:
            return ()
        return tuple(sorted(team.name for team in fleet.spec.teams if identity.may("write", team.name)))
