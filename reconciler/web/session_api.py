"""Routes for who is logged in; shapes in ``schemas.login_api``."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from reconciler.access.login_links import LoginLinks
from reconciler.access.roles import rights
from reconciler.access.sessions import Sessions
from reconciler.pki.authenticator import INCLUDED, Authenticator, Identity
from reconciler.store.sessions import Session
from reconciler.web.bodies import json_answer, read_json
from reconciler.web.endpoint import Endpoint
from schemas.login_api import (
    LOGIN_LINKS_PATH,
    SESSION_PATH,
    SESSIONS_PATH,
    WHOAMI_PATH,
    LoginLinkRequest,
    NewLoginLink,
    SessionList,
    SessionView,
    WhoAmI,
)


class SessionApi:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        sessions: Sessions,
        links: LoginLinks,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authenticator = authenticator
        self._sessions = sessions
        self._links = links
        self._clock = clock

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("GET", WHOAMI_PATH, "Who asks, and what it may do", self.whoami, anybody=True, response=WhoAmI),
            Endpoint("GET", SESSIONS_PATH, "Who is logged in", self.sessions, "admin", response=SessionList),
            Endpoint("DELETE", SESSION_PATH, "End a session, at once", self.end_session, "admin",
                     response=SessionView),
            Endpoint("POST", LOGIN_LINKS_PATH, "Make a link that lets somebody in once", self.create_login_link,
                     "admin", request=LoginLinkRequest, response=NewLoginLink, status=201),
        )  # fmt: skip

    async def whoami(self, request: Request) -> Response:
        caller = self._identify(request)
        until = caller.accepted_until
        return json_answer(
            WhoAmI(
                kind=caller.kind,
                name=caller.name,
                actor=str(caller),
                full_name=caller.full_name,
                mail=caller.mail,
                scopes=_with_included(caller.scopes),
                team=caller.team,
                of_teams={team: _with_included(scopes) for team, scopes in caller.of_teams.items()},
                until=_utc(until) if until < self._clock() + 366 * 86_400 else None,
            )
        )

    async def sessions(self, request: Request) -> Response:
        caller = self._administrator(request)
        return json_answer(SessionList(sessions=self.views(caller)))

    def views(self, caller: Identity) -> tuple[SessionView, ...]:
        """Describe all sessions for ``caller``, oldest first."""
        return tuple(self._view(one, caller) for one in self._sessions.all())

    async def end_session(self, request: Request) -> Response:
        caller = self._administrator(request)
        ended = await self._sessions.end(request.path_params["session"], by=str(caller))
        return json_answer(self._view(ended, caller))

    async def create_login_link(self, request: Request) -> Response:
        caller = self._administrator(request)
        wanted = await read_json(request, LoginLinkRequest)
        link, url = await self._links.create(wanted, by=str(caller), base=self._authenticator.issuer)
        may = rights(filter(None, [wanted.role]), link.teams)
        new = NewLoginLink(url=SecretStr(url), name=link.name, roles=may.roles, expires_at=_utc(link.expires_at))
        return json_answer(new, 201)

    def _view(self, one: Session, caller: Identity) -> SessionView:
        return SessionView(
            id=one.id,
            name=one.name,
            full_name=one.full_name,
            mail=one.mail,
            issuer=one.issuer,
            subject=one.subject,
            groups=one.groups,
            roles=self._sessions.rights(one).roles,
            created_at=_utc(one.created_at),
            last_used_at=_utc(one.last_used_at),
            expires_at=_utc(one.expires_at),
            client=one.client,
            current=one.id == caller.thumbprint,
        )

    def _administrator(self, request: Request) -> Identity:
        identity = self._identify(request)
        identity.require("admin")
        return identity

    def _identify(self, request: Request) -> Identity:
        return self._authenticator.authenticate(request.method, str(request.url), request.headers, self._clock())


def _with_included(scopes: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(scopes.union(*(INCLUDED.get(one, frozenset()) for one in scopes))))


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
