"""Links that let somebody in once: for the first administrator, and wherever there is no provider (docs/adr/0048).

``<public URL>/login/link?key=<id>.<secret>``. Opening one shows a page with a button, so that what looks ahead at links
uses none up. Of two who use it at once one is let in; of the secret only a hash is kept.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlencode

from reconciler.access.audit import Audit
from reconciler.access.roles import rights
from reconciler.access.sessions import Person, Store, hash_of
from reconciler.errors import Refused
from reconciler.store.sessions import LoginLink
from schemas.login_api import LINK_PATH, LoginLinkRequest

LIFETIME: Final = 600.0
MAX_LINKS: Final = 100
"""That wait to be used; the one that ends first makes room."""
_KEY: Final = re.compile(r"([0-9a-f]{20})\.([A-Za-z0-9_-]{43})")
_NO_HASH: Final = "0" * 64


class LoginLinks:
    """``load`` before anybody is let in."""

    def __init__(self, store: Store, audit: Audit, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._audit = audit
        self._clock = clock
        self._links: dict[str, LoginLink] = {}
        self._turn = asyncio.Lock()

    async def load(self) -> None:
        """Take up the links that an earlier process made."""
        self._links = {one.id: one for one in await self._store.login_links()}

    async def create(self, wanted: LoginLinkRequest, *, by: str, base: str) -> tuple[LoginLink, str]:
        """Make a link below ``base``; the answer is the only place where it ever stands in clear."""
        link_id, secret = secrets.token_hex(10), secrets.token_urlsafe(32)
        roles, teams = tuple(filter(None, [wanted.role])), tuple(sorted(set(wanted.teams)))
        link = LoginLink(link_id, hash_of(secret), wanted.name, by, self._clock() + LIFETIME, roles, teams)
        async with self._turn:
            await self._make_room()
            await self._store.add_login_link(link)
            self._links[link_id] = link
        may = ", ".join(rights(filter(None, [wanted.role]), teams).roles)
        said = f"{by} made a link that lets {wanted.name} in once ({may})."
        await self._audit.tell("LoginLinkCreated", f"login-link/{link_id}", said, actor=by)
        return link, f"{base}{LINK_PATH}?{urlencode({'key': f'{link_id}.{secret}'})}"

    def find(self, key: str) -> LoginLink:
        """Return what a link is for, without using it up.

        Raises:
            Refused: 403 ``link-ended``, the same for one that never was. Not 401: logging in elsewhere does not help.
        """
        form = _KEY.fullmatch(key)
        found = None if form is None else self._links.get(form[1])
        offered = hash_of("" if form is None else form[2])
        good = hmac.compare_digest(offered, _NO_HASH if found is None else found.secret_sha256)
        if not good or found is None or found.expires_at <= self._clock():
            raise _ended()
        return found

    async def use(self, key: str) -> Person:
        """Use a link up, and return who is let in.

        Raises:
            Refused: 403 ``link-ended``; of several at once all but one.
        """
        link = self.find(key)
        async with self._turn:
            is_first = await self._store.use_login_link(link.id)
            self._links.pop(link.id, None)
        if not is_first:
            raise _ended()
        return Person(link.name, roles=link.roles, teams=link.teams)

    async def _make_room(self) -> None:
        now = self._clock()
        ended = [one.id for one in self._links.values() if one.expires_at <= now]
        crowd = sorted(self._links, key=lambda one: self._links[one].expires_at)
        for link_id in ended or crowd[: max(0, len(crowd) + 1 - MAX_LINKS)]:
            await self._store.use_login_link(link_id)
            self._links.pop(link_id, None)


def _ended() -> Refused:
    return Refused(
        "This link is good no more: it was used, has expired, or never was.",
        status=403,
        code="link-ended",
        hint="Make a new one on the machine of the control plane: cloudlunacy login --data DIR",
    )
