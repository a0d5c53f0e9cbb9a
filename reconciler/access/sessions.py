"""Sessions of browsers: ``<id>.<secret>`` in a cookie, known here by a hash (docs/adr/0048).

All are kept in memory, so that a request is judged without asking the disk. What a session may do is found at each
request: the role comes from the fleet file in service, which says what the groups may that the provider named.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol, cast

import structlog

from reconciler.access.audit import Audit
from reconciler.access.roles import NO_RIGHTS, Rights, Role, rights, rights_of_groups
from reconciler.errors import CloudLunacyError, Refused
from reconciler.pki.authenticator import Identity
from reconciler.pki.jose import refused
from reconciler.store.protocols import EventStore
from reconciler.store.sessions import Session, SessionStore
from schemas.fleet import Access
from schemas.text import visible
from schemas.tokens import OPERATOR_LIFETIME

log = structlog.get_logger(__name__)

LIFETIME: Final = 12 * 3600.0
"""After that one logs in again, whatever was done."""
IDLE: Final = 3600.0
"""After that without anything done by a person too."""
MAX_SESSIONS: Final = 2000
MAX_OF_ONE: Final = 20
"""Of the same person; the one that was used least lately makes room."""
LONGEST_CLIENT: Final = 200
LOOK_SECONDS: Final = 10.0
USE_SECONDS: Final = 60.0
"""To this the last use is known on disk."""
_FORM: Final = re.compile(r"([0-9a-f]{20})\.([A-Za-z0-9_-]{43})")
_NO_HASH: Final = "0" * 64
_HINT: Final = "Log in again."


class Store(SessionStore, EventStore, Protocol):
    """What has to be remembered."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who logs in. ``groups`` come from the provider; ``roles`` and ``teams`` from a link."""

    name: str
    full_name: str = ""
    mail: str = ""
    issuer: str = ""
    subject: str = ""
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()


class Sessions:
    """``load`` before anybody is let in; ``run`` is a task of the application. ``access``: of the fleet in service.

    ``issuer`` is that of the provider, None where there is none: what another one said of groups counts no more.
    """

    def __init__(
        self,
        store: Store,
        audit: Audit,
        access: Callable[[], Access],
        *,
        issuer: str | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._audit = audit
        self._access = access
        self._issuer = issuer
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._used: dict[str, float] = {}
        """Session → time of its last use, where the disk does not know it yet."""
        self._gone: set[str] = set()
        """Ended, and perhaps on the disk still."""
        self._turn = asyncio.Lock()

    async def load(self) -> None:
        """Take up the sessions of an earlier process."""
        self._sessions = {one.id: one for one in await self._store.sessions()}

    # --- checking -------------------------------------------------------------------------------------------------

    def check(self, cookie: str, now: float, *, active: bool) -> Identity:
        """Return whose session it is; ``active`` where a person did something.

        Raises:
            Refused: 401 ``session-ended``, the same for one that never was; 403 ``no-role``.
        """
        form = _FORM.fullmatch(cookie)
        found = None if form is None else self._sessions.get(form[1])
        offered = hash_of("" if form is None else form[2])
        if not hmac.compare_digest(offered, _NO_HASH if found is None else found.secret_sha256) or found is None:
            raise refused("session-ended", "The session is not known here, or was ended.", _HINT)
        if not self._is_alive(found, now):
            raise refused("session-ended", "The session has ended.", _HINT)
        if active:
            self._used[found.id] = max(now, self._used.get(found.id, 0.0))
        may = self.rights(found)
        if not may:
            raise no_role(found.name)
        return Identity(
            "person",
            found.name,
            may.scopes,
            found.id,
            min(found.expires_at, now + OPERATOR_LIFETIME),
            of_teams=may.of_teams,
            full_name=found.full_name,
            mail=found.mail,
            roles=may.roles,
        )

    def is_good(self, identity: Identity, now: float) -> bool:
        """Say whether a session goes on, and may still do what ``identity`` might."""
        found = self._sessions.get(identity.thumbprint)
        if found is None or not self._is_alive(found, now):
            return False
        return self.rights(found).covers(identity.scopes, identity.of_teams)

    def rights(self, who: Session | Person) -> Rights:
        """Return what somebody may do now."""
        if who.issuer:
            return rights_of_groups(who.groups, self._access()) if who.issuer == self._issuer else NO_RIGHTS
        return rights((cast("Role", one) for one in who.roles), who.teams)

    def all(self) -> tuple[Session, ...]:
        """Return those that have not ended, oldest first; ``last_used_at`` is up to date."""
        now = self._clock()
        return tuple(
            replace(one, last_used_at=self._last_use(one))
            for one in self._sessions.values()
            if self._is_alive(one, now)
        )

    def _is_alive(self, session: Session, now: float) -> bool:
        return now < session.expires_at and now < self._last_use(session) + IDLE

    def _last_use(self, session: Session) -> float:
        return max(session.last_used_at, self._used.get(session.id, 0.0))

    # --- beginning and ending -------------------------------------------------------------------------------------

    async def begin(self, person: Person, how: str, client: str = "") -> str:
        """Make a session and return the value of its cookie: a new one each time, whatever the browser sent.

        ``client`` is what the browser calls itself, which nobody can check.

        Raises:
            Refused: 403 ``no-role`` for who may do nothing here.
        """
        may = self.rights(person)
        if not may:
            raise no_role(person.name)
        now, session_id, secret = self._clock(), secrets.token_hex(10), secrets.token_urlsafe(32)
        session = Session(
            session_id, hash_of(secret), person.name, now, now, now + LIFETIME, person.full_name, person.mail,
            person.issuer, person.subject, person.groups, person.roles, person.teams, visible(client)[:LONGEST_CLIENT],
        )  # fmt: skip
        async with self._turn:
            await self._make_room(session)
            await self._store.save_session(session)
            self._sessions[session_id] = session
        said = f"{person.name} logged in {how} ({', '.join(may.roles)})."
        await self._audit.tell("LoggedIn", f"session/{session_id}", said, actor=f"person:{person.name}")
        return f"{session_id}.{secret}"

    async def end(self, session_id: str, *, by: str) -> Session:
        """End a session, at once; by the person itself it is a logout.

        Raises:
            Refused: 404 ``unknown-session``.
        """
        async with self._turn:
            found = self._sessions.pop(session_id, None)  # first: it ends also where the disk is full
            if found is None:
                raise Refused("There is no such session.", status=404, code="unknown-session")
            self._gone.add(session_id)
            await self._forget()
        own = by == f"person:{found.name}"
        kind, said = ("LoggedOut", f"{found.name} logged out.") if own else (
            "SessionEnded", f"{by} ended a session of {found.name}.")  # fmt: skip
        await self._audit.tell(kind, f"session/{session_id}", said, actor=by)
        return found

    async def leave(self, cookie: str) -> None:
        """End the session of a cookie, where there is one: for who logs out, or in as somebody else."""
        try:
            identity = self._holder(cookie)
            await self.end(identity.id, by=f"person:{identity.name}")
        except Refused:
            return

    def _holder(self, cookie: str) -> Session:
        form = _FORM.fullmatch(cookie)
        found = None if form is None else self._sessions.get(form[1])
        if form is None or found is None or not hmac.compare_digest(hash_of(form[2]), found.secret_sha256):
            raise refused("session-ended", "The session is not known here.", _HINT)
        return found

    async def _make_room(self, new: Session) -> None:
        """End what was used least lately: of the same person where those are many, else of all. Call it in turn."""
        who = (new.issuer, new.subject or new.name)
        own = [one for one in self._sessions.values() if (one.issuer, one.subject or one.name) == who]
        crowd = own if len(own) >= MAX_OF_ONE else list(self._sessions.values())
        if len(own) < MAX_OF_ONE and len(self._sessions) < MAX_SESSIONS:
            return
        last = min(crowd, key=self._last_use)
        del self._sessions[last.id]
        self._gone.add(last.id)
        await self._forget()
        said = f"The session of {last.name} that was used least lately made room for another."
        await self._audit.tell("SessionEnded", f"session/{last.id}", said, actor=f"person:{new.name}")

    async def _forget(self) -> None:
        """Take what has ended off the disk. What fails is tried again, and counts as ended meanwhile. In turn."""
        for session_id in sorted(self._gone):
            try:
                await self._store.forget_session(session_id)
            except CloudLunacyError as error:
                log.warning("a session that ended cannot be taken off the disk yet", error=str(error))
                return
            self._gone.discard(session_id)
            self._used.pop(session_id, None)

    # --- looking after them ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write down uses and ends for ever. A disk that is full today may not be tomorrow."""
        while True:
            try:
                await self.look()
            except CloudLunacyError as error:
                log.warning("uses of sessions cannot be written yet", error=str(error))
            except Exception:  # a bug must not end the task
                log.exception("writing uses of sessions ended by a bug, trying again")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Write down what was used, and tell of those that have ended by themselves."""
        async with self._turn:
            now = self._clock()
            for one in list(self._sessions.values()):
                if not self._is_alive(one, now):
                    await self._expire(one)
                elif self._last_use(one) >= one.last_used_at + USE_SECONDS:
                    used = replace(one, last_used_at=self._last_use(one))
                    await self._store.save_session(used)
                    self._sessions[one.id] = used
            await self._forget()

    async def _expire(self, session: Session) -> None:
        del self._sessions[session.id]
        self._gone.add(session.id)
        said = f"A session of {session.name} has expired."
        await self._audit.tell("SessionExpired", f"session/{session.id}", said, actor=f"person:{session.name}")


def no_role(name: str) -> Refused:
    """Return the refusal of somebody who is known, and may do nothing here."""
    return Refused(
        f"{name} has no role here.",
        status=403,
        code="no-role",
        hint="An administrator gives roles to groups in fleet.yaml, under access.groups; then log in again.",
    )


def hash_of(secret: str) -> str:
    """Return the hex digest of a secret of 256 random bits, which nobody can guess from it."""
    return hashlib.sha256(secret.encode()).hexdigest()
