"""``/secrets``: names and keys, who names them, to whom they are sealed. No value, sealed or not, is on the page."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from reconciler.changes.service import Changes
from reconciler.desired.state import State
from reconciler.errors import CloudLunacyError
from reconciler.pki.authenticator import Identity
from reconciler.steps.passing import Published
from reconciler.web.endpoint import Endpoint
from reconciler.web.pages.kit import Site
from reconciler.web.pages.placement import page_of
from schemas.objects import ObjectKey
from schemas.secret import Secret

PAGE: Final = 50
MOST_REFERRERS: Final = 20
LOOK_SECONDS: Final = 0.15
"""That a page waits for what git says of its files."""
AT_ONCE: Final = 4
MOST_KNOWN: Final = 10_000
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
        self._changed: dict[tuple[str, str], datetime | None] = {}
        """Path and blob → when the file became so."""
        self._turns = asyncio.Semaphore(AT_ONCE)

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
        shown = [names[name] for name in page]
        await self._look_up(state, shown)
        rows = [self._row(state, key, len(recipients)) for key in shown]
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

    async def _look_up(self, state: State, keys: Sequence[ObjectKey]) -> None:
        """Find out when files were changed; what takes longer than a page may is left for the next view."""
        missing = [key for key in keys if (key.path, state.served[key].blob) not in self._changed]
        if not missing:
            return
        tasks = [asyncio.create_task(self._when(key, state.served[key].blob), name="secret-age") for key in missing]
        await asyncio.wait(tasks, timeout=LOOK_SECONDS)
        for task in tasks:
            task.cancel()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(found, Exception) and not isinstance(found, CloudLunacyError):
                raise found

    async def _when(self, key: ObjectKey, blob: str) -> None:
        async with self._turns:
            commits = await self._changes.history(key.path, 1)
        if len(self._changed) >= MOST_KNOWN:
            self._changed.clear()
        self._changed[key.path, blob] = commits[0].time if commits else None

    def _row(self, state: State, key: ObjectKey, wanted: int) -> Row:
        found = state.objects[key]
        assert isinstance(found, Secret)
        referrers = sorted(state.referrers.get(key, ()))
        count = recipients_of(next(iter(found.spec.sealed.values()), ""))
        return Row(
            key,
            tuple(sorted(found.spec.sealed)),
            count,
            not wanted or count == wanted,
            tuple(referrers[:MOST_REFERRERS]),
            max(0, len(referrers) - MOST_REFERRERS),
            self._changed.get((key.path, state.served[key].blob)),
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
