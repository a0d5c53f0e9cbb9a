"""Changes of wax: a repository in memory that judges as validate does, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from reconciler.changes.service import Changes
from reconciler.desired.plan import make_plan
from reconciler.errors import Refused
from reconciler.pki.authenticator import Identity
from reconciler.web.pages.object_pages import blob_of
from schemas.changes_api import Change, ChangeAnswer, ChangeCheck, FileCommit, FileResult
from tests.support.documents import problems_of, settled, state_of
from tests.support.tokens import NOW

REVISION = "c" * 40


@dataclass
class WaxChanges(Changes):
    """``files`` are what the branch holds."""

    files: dict[str, bytes | None]
    submitted: list[tuple[Change, str]] = field(default_factory=list)
    commits: dict[str, tuple[FileCommit, ...]] = field(default_factory=dict)
    answer: ChangeAnswer = ChangeAnswer(state="committed", revision=REVISION, message="Done")  # noqa: RUF009 - frozen

    async def check(self, change: Change, identity: Identity) -> ChangeCheck:
        self._require_unchanged(change)
        edited = {one.path: one.text.encode() if one.text is not None else None for one in change.edits}
        state = state_of(self.files)
        next_one = settled(state, edited)
        after: Mapping[str, bytes | None] = {**self.files, **edited}
        problems = tuple(one for one in problems_of(next_one.state, after) if one.file in edited)
        return ChangeCheck(
            base="a" * 40,
            files=tuple(self._result(path, text) for path, text in edited.items()),
            problems=problems,
            blocking=tuple(one for one in problems if one.severity == "error"),
            plan=make_plan(state, next_one),
            message=change.message or "Change it",
        )

    def _result(self, path: str, text: bytes | None) -> FileResult:
        before = self.files.get(path)
        action = "none" if before == text else "delete" if text is None else "update" if before else "create"
        return FileResult.model_validate(
            {"path": path, "action": action, "text": None if text is None else text.decode()}
        )

    def _require_unchanged(self, change: Change) -> None:
        for one in change.edits:
            found = self.files.get(one.path)
            if one.expected is not None and one.expected != blob_of(None if found is None else found.decode()):
                raise Refused("The file was changed since.", status=412, code="changed-since")

    async def submit(self, change: Change, identity: Identity, *, key: str = "") -> ChangeAnswer:
        self._require_unchanged(change)
        self.submitted.append((change, str(identity)))
        return self.answer

    async def text(self, path: str) -> str | None:
        found = self.files.get(path)
        return None if found is None else found.decode()

    async def history(self, path: str, limit: int = 50) -> tuple[FileCommit, ...]:
        return self.commits.get(path, ())[:limit]


def commit(subject: str = "Add it", author: str = "Ann") -> FileCommit:
    """A commit that somebody pushed."""
    return FileCommit(
        revision=REVISION,
        author=author,
        email="ann@example.test",
        subject=subject,
        time=datetime.fromtimestamp(NOW, UTC),
    )
