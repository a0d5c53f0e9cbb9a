"""``/secrets``: names and keys, who names them, to whom they are sealed. No value, sealed or not, is on the page."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from reconciler.changes.service import Changes
from reconciler.desired.state import State
from reconciler.pki.authenticator import Identity
from reconciler.steps.passing import Published
from reconciler.web.endpoint import Endpoint
from reconciler.web.pages.kit import Site
from reconciler.web.pages.placement import page_of
from schemas.objects import ObjectKey
from schemas.secret import Secret

PAGE: Final = 50
MOST_REFERRERS: Final = 20
_STANZA: Final = re.compile(rb"^-> (\S+)", re.MULTILINE)
_END_OF_HEADER: Final = b"\n---"


class Row(NamedTuple):
    key: ObjectKey
    keys: tuple[str, ...]
    recipients: int
    """Recipients to whom the first value is sealed; 0 where that cannot be read."""
    fits: bool
    """As many as the fleet names."""
    referrers: tuple[ObjectKey, ...]
    more: int
    changed: datetime | None


class SecretPages:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(self, site: Site, changes: Changes, published: Callable[[], Published]) -> None:
        self._site = site
        self._changes = changes
        self._published = published
        self._state = State()
        self._names: dict[str, ObjectKey] = {}

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (Endpoint("GET", "/secrets", "Secrets", self.listing, "read", page=True),)

    async def listing(self, request: Request) -> Response:
        """Draw a page of secrets."""
        identity = self._site.caller(request)
        state = self._published().state
        asked = request.query_params
        team, text = asked.get("team", ""), asked.get("text", "").strip().lower()
        names = self._of(state)
        page, following = page_of(
            names, lambda name: (not team or names[name].team == team) and text in name, asked.get("after", ""), PAGE
        )
        recipients = state.fleet.spec.recipients if state.fleet is not None else ()
        rows = [await self._row(state, names[name], len(recipients)) for name in page]
        return await self._site.render(
            request,
            identity,
            "secrets.html.j2",
            rows=rows,
            total=len(names),
            team=team,
            text=text,
            teams=[("", "any"), *((one, one) for one in sorted({key.team for key in names.values()}))],
            next=following,
            recipients=recipients,
            writes_for=_writes_for(identity, state),
        )

    def _of(self, state: State) -> dict[str, ObjectKey]:
        if state is not self._state:
            found = sorted(key for key in state.served if key.kind == "Secret")
            self._state, self._names = state, {f"{key.team}/{key.name}": key for key in found}
        return self._names

    async def _row(self, state: State, key: ObjectKey, wanted: int) -> Row:
        found = state.objects[key]
        assert isinstance(found, Secret)
        referrers = sorted(state.referrers.get(key, ()))
        commits = await self._changes.history(key.path, 1)
        count = recipients_of(next(iter(found.spec.sealed.values()), ""))
        return Row(
            key,
            tuple(sorted(found.spec.sealed)),
            count,
            not wanted or count == wanted,
            tuple(referrers[:MOST_REFERRERS]),
            max(0, len(referrers) - MOST_REFERRERS),
            commits[0].time if commits else None,
        )


def recipients_of(armoured: str) -> int:
    """Count the recipients of an age file (https://age-encryption.org/v1), whose names it does not hold."""
    lines = [line for line in armoured.splitlines() if line and not line.startswith("-----")]
    try:
        header = base64.b64decode("".join(lines), validate=True).partition(_END_OF_HEADER)[0]
    except ValueError:
        return 0
    return sum(1 for kind in _STANZA.findall(header) if not kind.endswith(b"-grease"))


def _writes_for(identity: Identity, state: State) -> str:
    """Return a team whose secrets the person may set, for the command that the page shows."""
    teams = state.fleet.spec.teams if state.fleet is not None else ()
    return next((team.name for team in teams if identity.may("write", team.name)), "TEAM")
