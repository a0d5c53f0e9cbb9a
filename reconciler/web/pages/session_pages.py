"""``/sessions``: who is logged in and since when. A person sees and ends its own, an administrator everybody's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from reconciler.access.sessions import Sessions
from reconciler.errors import Refused
from reconciler.pki.authenticator import SESSION_COOKIE, Identity
from reconciler.web.endpoint import Endpoint
from reconciler.web.pages.kit import Site
from schemas.login_api import SessionView

PATH: Final = "/sessions"
PAGE: Final = 100


class SessionPages:
    """``views`` describes all sessions for somebody, as the API does; ``endpoints()`` is the table."""

    def __init__(self, site: Site, *, sessions: Sessions, views: Callable[[Identity], tuple[SessionView, ...]]) -> None:
        self._site = site
        self._sessions = sessions
        self._views = views

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("GET", PATH, "Who is logged in", self.listing, "read", page=True),
            Endpoint("POST", f"{PATH}/{{session}}/end", "End a session", self.end, "read", page=True),
        )

    async def listing(self, request: Request) -> Response:
        """Draw those that the caller may end, used last first; ``q`` is in their names."""
        identity = self._site.caller(request)
        words = request.query_params.get("q", "").strip()[:100]
        shown = [one for one in self._of(identity) if words.lower() in f"{one.name} {one.full_name} {one.mail}".lower()]
        shown.sort(key=lambda one: (not one.current, -one.last_used_at.timestamp()))
        return await self._site.render(
            request,
            identity,
            "sessions.html.j2",
            sessions=shown[:PAGE],
            left_out=max(0, len(shown) - PAGE),
            of_all=identity.may("admin"),
            words=words,
        )

    async def end(self, request: Request) -> Response:
        """End one at once; who ends the own one is logged out by it.

        Raises:
            Refused: 404 ``unknown-session``, for one that is somebody else's too.
        """
        identity = self._site.caller(request)
        await self._site.form(request)
        wanted = unquote(request.path_params["session"])
        found = next((one for one in self._of(identity) if one.id == wanted), None)
        if found is None:
            raise Refused(
                "There is no such session.",
                status=404,
                code="unknown-session",
                hint="It may have ended by itself. /sessions shows those that go on.",
            )
        await self._sessions.end(found.id, by=str(identity))
        if not found.current:
            return self._site.redirect(PATH, f"The session of {found.name} has ended.")
        response = self._site.redirect("/login")
        response.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="lax")
        return response

    def _of(self, identity: Identity) -> Sequence[SessionView]:
        every = self._views(identity)
        return every if identity.may("admin") else own(every)


def own(sessions: Sequence[SessionView]) -> tuple[SessionView, ...]:
    """Return those of the person whose session asks; none where it is no session that asks. PURE.

    A name is not enough: the provider and a link may each call somebody by it.
    """
    me = next((_who(one) for one in sessions if one.current), None)
    return tuple(one for one in sessions if _who(one) == me)


def _who(one: SessionView) -> tuple[str, str]:
    return one.issuer, one.subject or one.name
