"""Logging in and out: by a link that is good once, or by the provider.

Whoever comes in gets a cookie that was never seen before, and loses the session that the browser had; so nobody can put
a session under somebody else (CWE-384). What logs in by a form comes from a page of ours, and what comes back from the
provider belongs to an attempt of the same browser; so nobody can be logged in as somebody else unawares.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from reconciler.access.audit import Audit
from reconciler.access.login import ATTEMPT_COOKIE, ATTEMPT_SECONDS, Attempt, Attempts
from reconciler.access.login_links import LoginLinks
from reconciler.access.roles import rights
from reconciler.access.sessions import LIFETIME, Person, Sessions
from reconciler.agents.rates import CallerBuckets
from reconciler.errors import Broken, Refused, Transient
from reconciler.pki.authenticator import SESSION_COOKIE, own_cookie, session_cookie
from reconciler.web.callers import peer_of
from reconciler.web.endpoint import Endpoint
from reconciler.web.pages.headers import PRIVATE
from reconciler.web.pages.kit import Site
from reconciler.web.pages.words import local_path
from schemas.login_api import LINK_PATH
from schemas.tokens import origin

if TYPE_CHECKING:
    from reconciler.access.oidc import Provider

PROVIDER_PATH: Final = "/login/oidc"
CALLBACK_PATH: Final = "/login/oidc/callback"
RETURNS: Final = 20
RETURNS_PER_SECOND: Final = 0.2
"""Of answers that let nobody in, from one address: each costs the provider a request."""


class LoginPages:
    """``provider``: None where only links let people in."""

    def __init__(
        self,
        site: Site,
        *,
        sessions: Sessions,
        links: LoginLinks,
        audit: Audit,
        provider: Provider | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._site = site
        self._sessions = sessions
        self._links = links
        self._audit = audit
        self._provider = provider
        self._attempts = Attempts(site.clock)
        self._returns = CallerBuckets(RETURNS, RETURNS_PER_SECOND)
        self._monotonic = monotonic

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("GET", "/login", "Ways to log in", self.login, page=True),
            Endpoint("GET", LINK_PATH, "What a login link is for", self.link, page=True),
            Endpoint("POST", LINK_PATH, "Log in by a link, which is used up", self.use_link, page=True),
            Endpoint("GET", PROVIDER_PATH, "Lead to the provider", self.leave_for_provider, page=True),
            Endpoint("GET", CALLBACK_PATH, "Come back from the provider", self.return_from_provider, page=True),
            Endpoint("POST", "/logout", "Log out", self.logout, page=True),
        )

    async def login(self, request: Request) -> Response:
        onward = local_path(request.query_params.get("next", "/"))
        if self._site.someone(request) is not None:
            return self._site.redirect(onward)
        providers = []
        if self._provider is not None:
            query = "" if onward == "/" else f"?next={quote(onward, safe='/')}"
            providers = [(f"{PROVIDER_PATH}{query}", f"Log in with {self._provider.label}")]
        return await self._site.render(request, None, "login.html.j2", providers=providers)

    # --- by a link ------------------------------------------------------------------------------------------------

    async def link(self, request: Request) -> Response:
        """Show whom a link lets in, and a button; looking at it uses nothing up."""
        key = request.query_params.get("key", "")
        try:
            found = self._links.find(key)
        except Refused as refused:
            raise self._said(refused) from None
        may = rights((one for one in found.roles), found.teams).roles  # type: ignore[misc]  # as they were checked
        return await self._site.render(
            request, None, "login_link.html.j2", key=key, name=found.name, roles=may, path_of_form=LINK_PATH
        )

    async def use_link(self, request: Request) -> Response:
        form = await self._site.form(request)
        try:
            person = await self._links.use(form.get("key", ""))
        except Refused as refused:
            raise self._said(refused) from None
        return await self._let_in(request, person, "by a link", "/")

    # --- by the provider ------------------------------------------------------------------------------------------

    async def leave_for_provider(self, request: Request) -> Response:
        provider, onward = self._known_provider(), local_path(request.query_params.get("next", "/"))
        public = self._site.authenticator.issuer
        if origin(self._site.authenticator.addressed(str(request.url))) != origin(public):
            # the provider leads back to the public URL alone, and cookies do not go from one host to another
            query = urlencode({"next": onward})
            return RedirectResponse(f"{public}{PROVIDER_PATH}?{query}", 303, dict(PRIVATE))
        attempt = Attempt.new(onward)
        try:
            address = await provider.address(attempt)
        except (Transient, Broken) as error:
            raise self._said(_unavailable(error)) from None
        response = RedirectResponse(address, 303, dict(PRIVATE))
        response.set_cookie(
            ATTEMPT_COOKIE, self._attempts.seal(attempt), max_age=int(ATTEMPT_SECONDS), path="/", secure=True,
            httponly=True, samesite="lax",
        )  # fmt: skip
        return response

    async def return_from_provider(self, request: Request) -> Response:
        try:
            person, onward = await self._identified(request)
            response = await self._let_in(request, person, f"at {person.issuer}, where it is {person.subject}", onward)
        except (Transient, Broken) as error:
            raise self._said(_unavailable(error)) from None
        except Refused as refused:
            raise self._said(refused) from None
        response.delete_cookie(ATTEMPT_COOKIE, path="/", secure=True, httponly=True, samesite="lax")
        return response

    async def _identified(self, request: Request) -> tuple[Person, str]:
        provider = self._known_provider()
        attempt = self._attempts.open(
            own_cookie(request.headers, ATTEMPT_COOKIE), request.query_params.get("state", "")
        )
        returns = self._returns.of(peer_of(request, self._site.authenticator))
        if seconds := returns.take(self._monotonic()):
            text = "Too many logins from there led to nothing."
            raise Refused(text, status=429, code="too-many-requests", hint="Try again later.", retry_after=seconds)
        self._attempts.use(attempt)  # before the provider is asked, so that one attempt asks it once
        person = await provider.identify(attempt, request.query_params)
        returns.give_back()
        return person, attempt.onward

    def _known_provider(self) -> Provider:
        if self._provider is None:
            raise Refused(
                "No provider is set up here.",
                status=404,
                code="no-provider",
                hint="docs/access.md says how; cloudlunacy login makes a link that lets somebody in without one.",
            )
        return self._provider

    # --- in and out -----------------------------------------------------------------------------------------------

    async def _let_in(self, request: Request, person: Person, how: str, onward: str) -> Response:
        cookie = await self._sessions.begin(person, how, request.headers.get("user-agent", ""))
        await self._sessions.leave(session_cookie(request.headers))
        response = self._site.redirect(onward)
        response.set_cookie(
            SESSION_COOKIE, cookie, max_age=int(LIFETIME), path="/", secure=True, httponly=True, samesite="lax"
        )
        return response

    async def logout(self, request: Request) -> Response:
        """End the session; a second time changes nothing."""
        self._site.authenticator.require_own_origin(request.method, request.headers)
        await self._sessions.leave(session_cookie(request.headers))
        response = self._site.redirect("/login")
        response.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="lax")
        response.headers["Clear-Site-Data"] = '"cache"'
        return response

    def _said(self, refused: Refused) -> Refused:
        """Tell the audit that somebody was not let in."""
        self._audit.refused(refused.message, actor=refused.actor)
        return refused


def _unavailable(error: Transient | Broken) -> Refused:
    return Refused(error.message, status=503, code="provider-unavailable", hint=error.hint, retry_after=5.0)
