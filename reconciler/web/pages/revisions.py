"""Revisions: where each stands, what it does to traffic, what is wrong with it; approving it, and taking it back.

``GET  /revisions``                     the records, newest first; ``before`` is where the former page ended
``GET  /revisions/{revision}``          one of them; ``newest`` is a name as well
``POST /revisions/{revision}/approve``  let a held plan through, by its ``checksum``
``GET  /revisions/{revision}/revert``   what taking it back would do
``POST /revisions/{revision}/revert``   take it back, by a commit
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from reconciler.changes.service import Changes
from reconciler.errors import CloudLunacyError, Refused
from reconciler.pki.authenticator import Identity
from reconciler.status import Tracker
from reconciler.web.api import Control
from reconciler.web.approving import Approving
from reconciler.web.endpoint import Endpoint
from reconciler.web.pages.kit import Site
from reconciler.web.pages.revision_views import QuotedLines, in_order
from reconciler.web.revision_names import status_of
from schemas.changes_api import ChangeAnswer, RevisionDiff
from schemas.status import RevisionStatus

PAGE: Final = 30
SHOWN: Final = 100
"""Rows of each table of one revision; the API has the rest."""
LINES: Final = 600
"""Of one file's diff."""
PAUSE: Final = 0.1
LOOKS: Final = 100
"""How often the record of a commit that is known is looked for, every ``PAUSE`` seconds."""

_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class DiffLine(NamedTuple):
    """``kind``: add, del, hunk or empty."""

    kind: str
    text: str


class RevisionPages:
    """The pages; ``endpoints()`` is the table. Without ``changes`` nothing is taken back, and no diff is shown."""

    def __init__(
        self,
        *,
        site: Site,
        control: Control,
        tracker: Tracker,
        approving: Approving,
        lines: QuotedLines,
        changes: Changes | None = None,
    ) -> None:
        self._site = site
        self._control = control
        self._tracker = tracker
        self._approving = approving
        self._lines = lines
        self._changes = changes

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        one = "/revisions/{revision}"
        return (
            Endpoint("GET", "/revisions", "Revisions", self.listing, "read", page=True),
            Endpoint("GET", one, "One revision", self.revision, "read", page=True),
            Endpoint("POST", f"{one}/approve", "Approve it", self.approve, "approve", page=True),
            Endpoint("GET", f"{one}/revert", "What taking it back would do", self.preview, page=True),
            Endpoint("POST", f"{one}/revert", "Take it back", self.revert, page=True),
        )

    async def listing(self, request: Request) -> Response:
        """A page of records."""
        identity = self._site.caller(request)
        before = _moment(request.query_params.get("before", ""))
        found = await self._tracker.statuses(limit=PAGE + 1, before=before)
        shown = found[:PAGE]
        last = shown[-1].stages.get("fetched") if len(found) > PAGE else None
        return await self._site.render(
            request,
            identity,
            "revisions.html.j2",
            revisions=shown,
            in_service=self._control.published.revision,
            first="/revisions" if before is not None else "",
            next=f"/revisions?before={last.timestamp()}" if last is not None else "",
        )

    async def revision(self, request: Request) -> Response:
        """One record with all that belongs to it."""
        identity = self._site.caller(request)
        name = request.path_params["revision"]
        status = await self._soon(name)
        plan = await self._control.plan(status.revision)
        problems = status.quarantined[:SHOWN]
        agents = in_order(status.agents)
        return await self._site.render(
            request,
            identity,
            "revision.html.j2",
            asked=name,
            record=status,
            plan=plan,
            problems=problems,
            lines=await self._lines.of(status.revision, problems),
            agents=agents[:SHOWN],
            more_agents=len(agents) - SHOWN,
            diff=(diff := await self._diff(status.revision)),
            patches=[(one, list(_lines_of(one.patch))) for one in diff.files] if diff is not None else [],
            awaited=bool(status.approve) and self._approving.awaited == status.approve,
            is_in_service=status.revision == self._control.published.revision,
            may_revert=self._changes is not None and _may_write(identity),
            shown=SHOWN,
        )

    async def approve(self, request: Request) -> Response:
        """Let it through; the checksum says that the person saw the very plan that waits."""
        identity = self._site.caller(request, "approve")
        form = await self._site.form(request)
        status = await self._exactly(request)
        await self._approving.approve(form.get("checksum", ""), identity)
        return self._site.redirect(f"/revisions/{status.revision}", "Approved. It goes on at once.")

    async def preview(self, request: Request) -> Response:
        """What taking it back would do, before anybody does it."""
        identity, changes = self._writer(request)
        status = await self._exactly(request)
        change = await changes.reverting(status.revision)
        check = await changes.check(change, identity)
        return await self._site.render(
            request, identity, "revert.html.j2", record=status, check=check, change=change, shown=SHOWN
        )

    async def revert(self, request: Request) -> Response:
        """Take it back by a commit, as the person who asks; its files must be those that the preview showed."""
        identity, changes = self._writer(request)
        base = (await self._site.form(request)).get("base", "")
        if base and _COMMIT.fullmatch(base) is None:
            raise Refused("The form cannot be read.", status=400, code="bad-form")
        status = await self._exactly(request)
        answer = await changes.revert(status.revision, identity, base=base)
        made = answer.revision if answer.state == "committed" and answer.revision else status.revision
        return self._site.redirect(f"/revisions/{made}", told(answer))

    def _writer(self, request: Request) -> tuple[Identity, Changes]:
        identity = self._site.caller(request)
        if not _may_write(identity):
            identity.require("write")
        if self._changes is None:
            raise Refused("changes cannot be made here.", status=503, code="unavailable")
        return identity, self._changes

    async def _exactly(self, request: Request) -> RevisionStatus:
        return await status_of(request.path_params["revision"], self._tracker, self._control)

    async def _soon(self, name: str) -> RevisionStatus:
        """Return a record; that of a commit which was made a moment ago is waited for, since people are led there."""
        for _ in range(LOOKS):
            try:
                return await status_of(name, self._tracker, self._control)
            except Refused:
                if _COMMIT.fullmatch(name) is None or await self._diff(name) is None:
                    raise
            await asyncio.sleep(PAUSE)
        return await status_of(name, self._tracker, self._control)

    async def _diff(self, revision: str) -> RevisionDiff | None:
        """A page is there without its diff: the mirror may be away, or the commit pruned."""
        if self._changes is None:
            return None
        try:
            return await self._changes.diff(revision)
        except (CloudLunacyError, NotImplementedError):
            return None


def told(answer: ChangeAnswer) -> str:
    """Say in a sentence what became of a change."""
    match answer.state:
        case "committed":
            return f"Committed as {answer.revision[:10]}: {answer.message}"
        case "proposed":
            return f"Proposed on the branch {answer.branch}. {answer.pull_request}".strip()
        case "pending":
            return "Kept on disk; it will be committed as soon as the remote answers."
        case "conflicted":
            return f"Not committed: {answer.message}"
        case _:
            return "Nothing was left to change."


def _may_write(identity: Identity) -> bool:
    return identity.may("write") or any(identity.may("write", team) for team in identity.of_teams)


def _moment(text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text) if len(text) <= 20 else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Refused("before must be a number.", status=400, code="bad-query")
    return value


def _lines_of(patch: str) -> Iterator[DiffLine]:
    kinds = {"+": "add", "-": "del", "@": "hunk", "\\": "hunk"}
    lines = patch.splitlines()
    for line in lines[:LINES]:
        yield DiffLine(kinds.get(line[:1], ""), line)
    if len(lines) > LINES:
        yield DiffLine("hunk", f"… {len(lines) - LINES} further lines")
