"""``/tokens``: tokens of people and CI, for administrators. A new one is shown once, in the answer to its form."""

from __future__ import annotations

from typing import Final, get_args
from urllib.parse import unquote

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from reconciler.errors import Refused
from reconciler.pki.api_tokens import ApiTokens
from reconciler.pki.authenticator import Identity
from reconciler.web.endpoint import Endpoint
from reconciler.web.pages.kit import Form, Site
from schemas.access_api import ApiTokenRequest, Grantable, NewApiToken

PATH: Final = "/tokens"
SCOPES: Final = {
    "read": "see all that is known",
    "plan": "see what a change is compared with",
    "write": "change objects by commits",
    "operate": "restart, drain, look at the remote now, read logs",
    "approve": "let held plans through",
    "enrol": "make tokens for new agents",
    "exec": "run programs in what is deployed",
}
PAGE: Final = 200


class TokenPages:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(self, site: Site, tokens: ApiTokens) -> None:
        self._site = site
        self._tokens = tokens

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("GET", PATH, "API tokens", self.listing, "admin", page=True),
            Endpoint("POST", PATH, "Make a token", self.create, "admin", page=True),
            Endpoint("POST", f"{PATH}/{{token}}/revoke", "End a token", self.revoke, "admin", page=True),
        )

    async def listing(self, request: Request) -> Response:
        """Draw all that are known."""
        return await self._page(request, self._site.caller(request, "admin"))

    async def create(self, request: Request) -> Response:
        """Make one and show it: the only time that it can be seen."""
        form = await self._site.form(request)
        identity = self._site.caller(request, "admin")
        try:
            wanted = ApiTokenRequest.model_validate(
                {
                    "kind": form.get("kind", "person"),
                    "scopes": [one for one in get_args(Grantable) if one in form.every("scope")],
                    "expires": form.get("expires", "").strip() or "30d",
                    "name": form.get("name", "").strip() or None,
                    "team": form.get("team", "").strip() or None,
                }
            )
            made = await self._tokens.create(wanted, by=str(identity))
        except ValidationError as error:
            return await self._page(request, identity, form=form, wrong=_wrong(error), status=422)
        except Refused as refused:
            return await self._page(request, identity, form=form, wrong={"": str(refused)}, status=refused.status)
        return await self._page(request, identity, made=made)

    async def revoke(self, request: Request) -> Response:
        """End one, at once."""
        await self._site.form(request)
        identity = self._site.caller(request, "admin")
        ended = await self._tokens.revoke(unquote(request.path_params["token"]), by=str(identity))
        return self._site.redirect(PATH, f"The token {ended.name} is good no more.")

    async def _page(
        self,
        request: Request,
        identity: Identity,
        *,
        form: Form | None = None,
        wrong: dict[str, str] | None = None,
        made: NewApiToken | None = None,
        status: int = 200,
    ) -> Response:
        views = sorted(self._tokens.views(), key=lambda one: (one.state != "good", -one.created_at.timestamp()))
        return await self._site.render(
            request,
            identity,
            "tokens.html.j2",
            status=status,
            tokens=views[:PAGE],
            left_out=max(0, len(views) - PAGE),
            scopes=SCOPES,
            said=form or Form([]),
            chosen=form.every("scope") if form is not None else ("read",),
            wrong=wrong or {},
            made=made,
            secret=made.token.get_secret_value() if made is not None else "",
        )


def _wrong(error: ValidationError) -> dict[str, str]:
    """Return field → a sentence."""
    found: dict[str, str] = {}
    for one in error.errors(include_input=False, include_url=False):
        name = str(one["loc"][0]) if one["loc"] else ""
        text = {
            "scopes": "Choose at least one scope.",
            "expires": "Write it like 30d, 12h or 90m.",
            "name": "A name is in small letters, digits and hyphens.",
            "team": "This is no name of a team.",
        }
        found.setdefault(name, text.get(name, str(one["msg"]).removeprefix("Value error, ").capitalize() + "."))
    return found
