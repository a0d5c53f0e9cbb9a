"""Changes that people make by the API and the dashboard: checked, and committed in their name (docs/adr/0050).

In order: may this person write these files → the tip of the branch → nothing changed since the person looked → the
files as they would be pass every check of a commit, or make nothing worse → the entry of the outbox is durable → the
answer, once the commit is on the remote, or after ten seconds without. Nothing is written for what is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from reconciler.agents.group_commit import ALREADY_THERE, CONFLICTED, PROPOSED, GroupCommitter, Settled
from reconciler.agents.rates import CallerBuckets
from reconciler.changes import permission
from reconciler.changes.branch import Branch
from reconciler.changes.committing import Accepted, event_of, message_of
from reconciler.changes.evaluating import Evaluation
from reconciler.changes.judging import Judged, Judging
from reconciler.changes.looking import Looking
from reconciler.desired.state import State
from reconciler.desired.view import OpenSecret
from reconciler.errors import CloudLunacyError, Refused
from reconciler.pki.authenticator import Identity
from reconciler.store.protocols import EventStore, Outbox, OutboxEntry
from schemas.changes_api import Change, ChangeAnswer, ChangeCheck, FileCommit, RevisionDiff
from schemas.fleet import Fleet
from schemas.problem import Problem

log = structlog.get_logger(__name__)

ANSWER_SECONDS: Final = 10.0
PROPOSE_SECONDS: Final = 20.0
"""For the forge to open the pull request."""
BURST: Final = 60
PER_SECOND: Final = 0.5
"""Changes of one person."""
CHECK_BURST: Final = 120
CHECKS_PER_SECOND: Final = 2.0
"""Of one person: each is the judgement of a whole state repo."""
REMEMBERED: Final = 1000
"""Answers that can be given again in full."""


class Store(Outbox, EventStore, Protocol):
    """What has to be remembered."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """A branch that was pushed for a pull request."""

    branch: str
    base: str
    """The branch that it is to be merged into."""
    title: str
    body: str
    actor: str
    revision: str
    files: tuple[str, ...]


OnProposed = Callable[[Proposed], Awaitable[str]]
"""Opens the pull request; returns its URL, or an empty text where there is none."""


async def by_hand(_: Proposed) -> str:
    """Leave the pull request to people."""
    return ""


class Changes:
    """What pages and the API ask for. ``state()`` is in service; ``wake()`` has the remote looked at."""

    def __init__(
        self,
        *,
        store: Store,
        committer: GroupCommitter,
        branch: Branch,
        state: Callable[[], State],
        open_sealed: OpenSecret,
        wake: Callable[[], None],
        answer_seconds: float = ANSWER_SECONDS,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._committer = committer
        self._branch = branch
        self._state = state
        self._judging = Judging(branch, state, open_sealed)
        self._looking = Looking(branch)
        self._wake = wake
        self._answer_seconds = answer_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._buckets = CallerBuckets(BURST, PER_SECOND)
        self._checks = CallerBuckets(CHECK_BURST, CHECKS_PER_SECOND)
        self._entries: OrderedDict[str, OutboxEntry] = OrderedDict()
        """Id → what was accepted last, to answer with."""
        self._urls: OrderedDict[str, str] = OrderedDict()
        self._proposing = asyncio.Lock()
        self.on_proposed: OnProposed = by_hand
        """Called once for each branch that was pushed for a pull request, and again after a restart at worst."""

    # --- looking ------------------------------------------------------------------------------------------------

    async def text(self, path: str) -> str | None:
        """Return the newest text of an object's file; None where there is none, or it is no text.

        Raises:
            Refused: 422 ``not-an-object``; 409 ``not-a-regular-file``; 503 ``not-ready``.
        """
        permission.keys_of([path])
        return await self._looking.text(path)

    async def version(self, path: str) -> tuple[str, str, str | None]:
        """Return the newest revision, the blob id of the file in it (empty: there is none), and its text.

        Raises:
            Refused: as :meth:`text`.
        """
        permission.keys_of([path])
        return await self._looking.version(path)

    async def history(self, path: str, limit: int = 50) -> tuple[FileCommit, ...]:
        """Return who changed a file, newest first.

        Raises:
            Refused: 422 ``not-an-object``; 503 ``not-ready``.
        """
        permission.keys_of([path])
        return await self._looking.history(path, limit)

    async def diff(self, revision: str) -> RevisionDiff:
        """Return what a revision changed, beside its first parent. ``revision``: its id, or 7 digits of it or more.

        Raises:
            Refused: 404 ``unknown-revision``.
        """
        return await self._looking.diff(revision)

    async def check(self, change: Change, identity: Identity) -> ChangeCheck:
        """Say what a change would do, beside the newest that is known here; nothing is written.

        Raises:
            Refused: 412 ``changed-since``; 422 ``not-an-object``; 429; 503 ``not-ready``.
        """
        self._take_turn(self._checks, identity, "You check changes too often.")
        fleet, keys = self._fleet(), permission.keys_of(edit.path for edit in change.edits)
        judged = await self._judging.judge(change, keys, await self._branch.newest())
        proposal = change.proposal if change.proposal is not None else fleet.spec.changes.mode == "pull-request"
        subject, _ = message_of(change.message, judged.subject)
        return judged.answer(proposal=proposal, message=subject)

    # --- writing ------------------------------------------------------------------------------------------------

    async def submit(self, change: Change, identity: Identity, *, key: str = "") -> ChangeAnswer:
        """Have a change committed; ``key`` is of the request: the same key of the same person is one commit.

        Raises:
            Refused: 403 ``insufficient-scope``, ``other-team``, ``pull-request-needed``, ``signature-needed``; 412
                ``changed-since``; 422 ``change-refused`` with the problems; 429; 503.
        """
        keys = permission.keys_of(edit.path for edit in change.edits)
        permission.require_writable(identity, keys.values())
        fleet = self._fleet()
        if (known := await self.again(identity, key)) is not None:
            return known
        change_id = _change_id(identity, key)
        self._take_turn(self._buckets, identity, "You change objects too often.")
        proposal = permission.becomes_proposal(fleet, keys, change.proposal)
        judged = await self._judging.judge(change, keys, await self._branch.fresh())
        _require_enrolling(identity, judged.evaluation, keys)
        subject, body = message_of(change.message, judged.subject)
        if not judged.touched:
            return ChangeAnswer(state="nothing", revision=judged.revision, files=tuple(keys), message=subject)
        _require_good(judged)
        accepted = Accepted(
            id=change_id,
            files=judged.touched,
            seen={path: held.content for path, held in judged.held.items()},
            subject=subject,
            body=body,
            actor=str(identity),
            author=identity.author,
            proposal=proposal,
            at=self._clock(),
        )
        return await self._write(accepted.entry(), judged.problems)

    async def again(self, identity: Identity, key: str) -> ChangeAnswer | None:
        """Return what became of a change that the same person asked for by the same key; None where there is none.

        Ask it before what the change was made of is compared with what is there: by itself it has changed that.
        """
        return await self._known(_change_id(identity, key)) if key else None

    async def reverting(self, revision: str, *, message: str = "", proposal: bool | None = None) -> Change:
        """Return the change that takes a revision back, to be checked or submitted.

        Raises:
            Refused: 404 ``unknown-revision``; 409 ``first-commit``, ``nothing-to-revert``, ``changed-since-revert``.
        """
        return await self._looking.reverting(revision, message=message, proposal=proposal)

    async def revert(
        self,
        revision: str,
        identity: Identity,
        *,
        message: str = "",
        proposal: bool | None = None,
        base: str = "",
        key: str = "",
    ) -> ChangeAnswer:
        """Take a revision back: :meth:`reverting`, submitted. ``base``: revision that the person saw, if any.

        Raises:
            Refused: as both.
        """
        change = await self.reverting(revision, message=message, proposal=proposal)
        if base and (changed := await self._looking.changed_since(change, base)):
            hint = "Look again at what taking it back would do."
            text = f"{changed[0]} was changed since you looked at it."
            raise Refused(text, status=412, code="changed-since", hint=hint)
        return await self.submit(change, identity, key=key)

    async def standing(self, change_id: str) -> ChangeAnswer:
        """Say how a change stands that was accepted.

        Raises:
            Refused: 404 ``unknown-change``.
        """
        known = await self._known(change_id, seconds=0.0)
        if known is None:
            raise Refused("There is no such change.", status=404, code="unknown-change")
        return known

    async def _known(self, change_id: str, *, seconds: float | None = None) -> ChangeAnswer | None:
        entry = self._entries.get(change_id)
        if self._committer.is_pending(change_id):
            settled = await self._committer.wait(change_id, self._answer_seconds if seconds is None else seconds)
            return await self._answer(change_id, entry, settled)
        found = await self._store.outcome(change_id)
        return None if found is None else await self._answer(change_id, entry, Settled(*found))

    async def _write(self, entry: OutboxEntry, problems: tuple[Problem, ...]) -> ChangeAnswer:
        await self._store.put(entry)
        self._entries[entry.id] = entry
        while len(self._entries) > REMEMBERED:
            self._entries.popitem(last=False)
        self._committer.add(entry)
        log.info(
            "a change was accepted", change=entry.id, actor=entry.payload["actor"], files=len(entry.payload["files"])
        )
        settled = await self._committer.wait(entry.id, self._answer_seconds)
        return (await self._answer(entry.id, entry, settled)).model_copy(update={"problems": problems})

    async def _answer(self, change_id: str, entry: OutboxEntry | None, settled: Settled | None) -> ChangeAnswer:
        said = entry.payload if entry is not None else {}
        answer = ChangeAnswer(
            state="pending",
            id=change_id,
            branch=str(said.get("branch", "")),
            files=tuple(said.get("files", ())),
            message=str(said.get("subject", "")),
        )
        if settled is None:
            return answer
        if settled.outcome.startswith(CONFLICTED):
            text = settled.outcome.removeprefix(CONFLICTED)
            return answer.model_copy(update={"state": "conflicted", "message": text})
        found: dict[str, object] = {"revision": settled.revision or "", "state": "committed"}
        if settled.outcome == PROPOSED:
            url = await self._pull_request(entry, settled) if entry is not None else ""
            found |= {"state": "proposed", "pull_request": url}
        else:
            found["state"] = "nothing" if settled.outcome == ALREADY_THERE else "committed"
            self._note(settled)
        return answer.model_copy(update=found)

    # --- what follows -------------------------------------------------------------------------------------------

    async def settled(self, entry: OutboxEntry, settled: Settled) -> None:
        """Tell what became of a change; whoever writes to the outbox's timeline calls it."""
        url = ""
        if settled.outcome == PROPOSED:
            url = await self._pull_request(entry, settled)
        elif not settled.outcome.startswith(CONFLICTED):
            self._note(settled)
        await self._store.append(event_of(entry, settled, self._clock(), url=url))

    def _note(self, settled: Settled) -> None:
        if settled.revision:
            self._branch.pushed(settled.revision)
        self._wake()

    async def _pull_request(self, entry: OutboxEntry, settled: Settled) -> str:
        """Have the pull request opened, once; return its URL."""
        async with self._proposing:
            if entry.id not in self._urls:
                self._urls[entry.id] = await self._propose(entry, settled)
                while len(self._urls) > REMEMBERED:
                    self._urls.popitem(last=False)
            return self._urls[entry.id]

    async def _propose(self, entry: OutboxEntry, settled: Settled) -> str:
        said = entry.payload
        proposed = Proposed(
            branch=str(said["branch"]),
            base=self._branch.mirror.branch,
            title=str(said["subject"]),
            body=str(said["body"]),
            actor=str(said["actor"]),
            revision=settled.revision or "",
            files=tuple(said["files"]),
        )
        try:
            return await asyncio.wait_for(self.on_proposed(proposed), PROPOSE_SECONDS)
        except (CloudLunacyError, TimeoutError) as error:
            log.warning("no pull request was opened", branch=proposed.branch, error=str(error))
        except Exception:  # the branch is there, and a person can open it
            log.exception("no pull request was opened, by a bug", branch=proposed.branch)
        return ""

    # --- what may be asked --------------------------------------------------------------------------------------

    def _fleet(self) -> Fleet:
        fleet = self._state().fleet
        if fleet is None or not self._committer.resumed.is_set():
            raise Refused("No revision is in service yet.", status=503, code="not-ready", retry_after=2.0)
        return fleet

    def _take_turn(self, buckets: CallerBuckets, identity: Identity, text: str) -> None:
        if seconds := buckets.of(str(identity)).take(self._monotonic()):
            raise Refused(text, status=429, code="too-many-requests", retry_after=seconds)


def _change_id(identity: Identity, key: str) -> str:
    """Return the id of the request: a new one, or for a key the same for the same person."""
    if not key:
        return f"change-{secrets.token_hex(12)}"
    said = f"{identity}\n{key}"
    return f"change-{hashlib.sha256(said.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


def _require_enrolling(identity: Identity, evaluation: Evaluation, paths: Mapping[str, object]) -> None:
    for path in paths:
        permission.require_enrolling(identity, evaluation.object_before(path), evaluation.object_at(path))


def _require_good(judged: Judged) -> None:
    """Refuse a change that brings errors.

    Raises:
        Refused: 422 ``change-refused``, with the problems.
    """
    if not judged.blocking:
        return
    count, first = len(judged.blocking), judged.blocking[0]
    text = f"The change is refused for {count} problem{'s' if count > 1 else ''}: {first.message}"
    problems = [one.model_dump(mode="json", by_alias=True) for one in judged.blocking]
    raise Refused(text, status=422, code="change-refused", hint=first.hint, more={"problems": problems})
