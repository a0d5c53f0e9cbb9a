"""A change beside what the branch holds: what it was made from, what is wrong with it, and what it would do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from reconciler.changes.branch import Branch, Held
from reconciler.changes.evaluating import (
    Evaluation,
    Found,
    blob_of,
    evaluate,
    plan_of,
    problems_of,
    state_ahead,
    subject_of,
)
from reconciler.changes.looking import file_commit, unknown_revision
from reconciler.desired.state import State
from reconciler.desired.view import OpenSecret
from reconciler.errors import Refused, Rejected
from reconciler.git.history import commits_of
from schemas.changes_api import Change, ChangeCheck, FileResult
from schemas.objects import ObjectKey
from schemas.plan import Plan
from schemas.problem import Problem

MAX_TOLD = 20
"""Commits that a person is told of who comes too late."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A change, judged on ``revision``. ``held``: path → what is there; ``wanted``: path → what shall be."""

    revision: str
    keys: Mapping[str, ObjectKey]
    held: Mapping[str, Held]
    wanted: Mapping[str, bytes | None]
    evaluation: Evaluation
    problems: tuple[Problem, ...]
    blocking: tuple[Problem, ...]
    plan: Plan | None

    @property
    def touched(self) -> Mapping[str, bytes | None]:
        """The files that would be written, and what they would hold."""
        return {path: content for path, content in self.wanted.items() if self.action(path) != "none"}

    @property
    def subject(self) -> str:
        """What the commit says where the person says nothing."""
        return subject_of(self.keys, {path: self.action(path) for path in self.keys})

    def action(self, path: str) -> str:
        """Return what happens to a file: create, update, delete or none."""
        held, wanted = self.held.get(path), self.wanted[path]
        if (held.content if held is not None else None) == wanted:
            return "none"
        return "delete" if wanted is None else "create" if held is None else "update"

    def answer(self, *, proposal: bool, message: str) -> ChangeCheck:
        """Return what the API says of it."""
        files = [
            FileResult.model_validate(
                {
                    "path": path,
                    "action": self.action(path),
                    "text": None if content is None else content.decode(),
                    "blob": self.held[path].blob if path in self.held else "",
                }
            )
            for path, content in self.wanted.items()
        ]
        return ChangeCheck(
            base=self.revision,
            files=tuple(files),
            problems=self.problems,
            blocking=self.blocking,
            plan=self.plan,
            proposal=proposal,
            message=message,
        )


class Judging:
    """``state()`` is in service."""

    def __init__(self, branch: Branch, state: Callable[[], State], open_sealed: OpenSecret) -> None:
        self._branch = branch
        self._state = state
        self._open_sealed = open_sealed
        self._ahead: tuple[State, str, State] | None = None
        """What was in service, a revision, and what the branch says there."""

    async def judge(self, change: Change, keys: Mapping[str, ObjectKey], revision: str) -> Judged:
        """Judge a change on a revision that is here.

        Raises:
            Refused: 412 ``changed-since``, with who changed what; 409 ``not-a-regular-file``.
        """
        held = await self._branch.files(revision, list(keys))
        await self._require_unchanged(change, held, revision)
        wanted = {edit.path: None if edit.text is None else _bytes_of(edit.path, edit.text) for edit in change.edits}
        before = await self._before(revision)
        evaluation = await asyncio.to_thread(evaluate, before, wanted, self._open_sealed)
        contents = dict(wanted) | await self._contents_of(evaluation, wanted)
        problems = await asyncio.to_thread(problems_of, evaluation.told, contents)
        stopping: Found = evaluation.blocking
        if not change.accept_plain:
            stopping = {
                path: (*stopping.get(path, ()), *evaluation.plain.get(path, ()))
                for path in {*stopping, *evaluation.plain}
            }
        blocking = await asyncio.to_thread(problems_of, stopping, contents)
        plan = await asyncio.to_thread(plan_of, evaluation, problems)
        return Judged(revision, keys, held, wanted, evaluation, problems, blocking, plan)

    async def _before(self, revision: str) -> State:
        state, known = self._state(), self._ahead
        if known is not None and known[0] is state and known[1] == revision:
            return known[2]
        ahead, contents = await self._branch.ahead(state, revision)
        found = await asyncio.to_thread(state_ahead, state, revision, ahead, contents, self._open_sealed)
        self._ahead = (state, revision, found)
        return found

    async def _contents_of(self, evaluation: Evaluation, wanted: Mapping[str, object]) -> dict[str, bytes | None]:
        """Read the files of others that something is said of, for the lines."""
        blobs = {path: blob_of(evaluation, path) for path in evaluation.told if path not in wanted}
        read = await self._branch.mirror.read([blob for blob in blobs.values() if blob])
        found = {path: read.get(blob) for path, blob in blobs.items()}
        return {path: content for path, content in found.items() if isinstance(content, bytes)}

    # --- who was faster -----------------------------------------------------------------------------------------

    async def _require_unchanged(self, change: Change, held: Mapping[str, Held], revision: str) -> None:
        now = {edit.path: held[edit.path].blob if edit.path in held else "" for edit in change.edits}
        seen = {edit.path: edit.expected for edit in change.edits if edit.expected is not None}
        if change.base and change.base != revision:
            try:
                then = await self._branch.blobs(change.base, list(now))
            except Rejected:
                raise unknown_revision(change.base) from None
            seen = {path: then.get(path, "") for path in now} | seen
        stale = {path: blob for path, blob in seen.items() if now[path] != blob}
        if stale:
            raise await self._stale(change, stale, now, revision)

    async def _stale(self, change: Change, stale: Mapping[str, str], now: Mapping[str, str], revision: str) -> Refused:
        changed = []
        for path, blob in list(stale.items())[:MAX_TOLD]:
            limit = MAX_TOLD if change.base else 1
            commits = await commits_of(self._branch.mirror, revision, path, since=change.base, limit=limit)
            found = [file_commit(one).model_dump(mode="json", by_alias=True) for one in commits]
            changed.append({"path": path, "seen": blob, "blob": now[path], "commits": found})
        first = next(iter(stale))
        who = await commits_of(self._branch.mirror, revision, first, limit=1)
        said = ""
        if who:
            when = who[0].time.astimezone(UTC) if isinstance(who[0].time, datetime) else who[0].time
            said = f' by {who[0].author_name}, "{who[0].subject}" ({who[0].revision[:12]}, {when:%Y-%m-%d %H:%M} UTC)'
        text = f"{first} was changed since you looked at it{said}."
        hint = "Look at the new version, and make the change again."
        return Refused(
            text, status=412, code="changed-since", hint=hint, more={"revision": revision, "changed": changed}
        )


def _bytes_of(path: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Refused(f'The text of "{path}" is no Unicode.', status=422, code="invalid-text") from None
