"""What files hold and held: their text, who changed them, what a revision did, and what would take it back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from reconciler.changes.branch import Branch, Held
from reconciler.changes.committing import ACTOR_TRAILER
from reconciler.changes.reverting import Unclear, taken_back
from reconciler.errors import Refused, Rejected
from reconciler.git.commits import CommitInfo
from reconciler.git.history import CommitChanges, changes_of, commits_of, patch, resolve
from schemas.changes_api import MAX_EDITS, Change, FileCommit, FileDiff, FileEdit, RevisionDiff
from schemas.objects import key_of_path

MAX_FILES: Final = 200
"""That a diff lists."""
MAX_PATCHES: Final = 100
"""Of these, that are shown."""
MAX_PATCH: Final = 64 * 1024
"""Characters of the patch of one file."""
MAX_HISTORY: Final = 1000


def file_commit(commit: CommitInfo) -> FileCommit:
    """Return a commit as the API shows it."""
    return FileCommit(
        revision=commit.revision,
        author=commit.author_name,
        email=commit.author_email,
        subject=commit.subject,
        time=commit.time,
        actor=commit.trailers.get(ACTOR_TRAILER, ""),
    )


def unknown_revision(revision: str) -> Refused:
    """Return the refusal of what is no commit that is known here."""
    text = f"There is no revision {revision[:64]} here."
    hint = "Was it pushed to the branch that the control plane follows?"
    return Refused(text, status=404, code="unknown-revision", hint=hint)


class Looking:
    """Reads the mirror."""

    def __init__(self, branch: Branch) -> None:
        self._branch = branch

    async def text(self, path: str) -> str | None:
        return (await self.version(path))[2]

    async def version(self, path: str) -> tuple[str, str, str | None]:
        revision = await self._branch.newest()
        held = (await self._branch.files(revision, [path])).get(path)
        if held is None:
            return revision, "", None
        try:
            return revision, held.blob, held.content.decode()
        except UnicodeDecodeError:
            return revision, held.blob, None

    async def history(self, path: str, limit: int) -> tuple[FileCommit, ...]:
        revision = await self._branch.newest()
        commits = await commits_of(self._branch.mirror, revision, path, limit=max(1, min(limit, MAX_HISTORY)))
        return tuple(map(file_commit, commits))

    async def diff(self, name: str) -> RevisionDiff:
        found = await self._changes(name)
        mirror, revision, paths = self._branch.mirror, found.commit.revision, [one.path for one in found.changes]
        shown = [path for path in paths[:MAX_FILES] if key_of_path(path) is not None][:MAX_PATCHES]
        before = await self._branch.blobs(found.parent, paths[:MAX_FILES]) if found.parent and paths else {}
        patches = patches_by_path(await patch(mirror, found.parent, revision, shown), shown)
        files = [
            _file_diff(one.path, one.path in before, one.file is None, patches.get(one.path))
            for one in found.changes[:MAX_FILES]
        ]
        return RevisionDiff(
            revision=revision,
            parent=found.parent,
            commit=file_commit(found.commit),
            files=tuple(files),
            left_out=max(0, len(paths) - MAX_FILES),
        )

    async def _changes(self, name: str) -> CommitChanges:
        try:
            return await changes_of(self._branch.mirror, await resolve(self._branch.mirror, name))
        except Rejected:
            raise unknown_revision(name) from None

    # --- taking back --------------------------------------------------------------------------------------------

    async def reverting(self, name: str, *, message: str, proposal: bool | None) -> Change:
        found = await self._changes(name)
        revision = found.commit.revision
        paths = [one.path for one in found.changes if key_of_path(one.path) is not None]
        if not found.parent:
            text = "This is the first commit of the repository: there is nothing to go back to."
            raise Refused(text, status=409, code="first-commit")
        if len(paths) > MAX_EDITS:
            text = f"{revision[:12]} changes {len(paths)} objects; at most {MAX_EDITS} are taken back here."
            raise Refused(text, status=409, code="too-many-files", hint=f"Use git: git revert {revision[:12]}")
        tip = await self._branch.newest()
        before, after, now = [await self._branch.files(at, paths) for at in (found.parent, revision, tip)]
        edits = []
        for path in paths:
            content, held = await self._content_of(path, before, after, now, tip), now.get(path)
            if content != (None if held is None else held.content):
                shown = None if content is None else content.decode("utf-8", "replace")
                edits.append(FileEdit(path=path, text=shown, expected="" if held is None else held.blob))
        if not edits:
            what = f"All that {revision[:12]} did to objects is taken back already."
            what = what if paths else f"{revision[:12]} changes no object."
            raise Refused(what, status=409, code="nothing-to-revert")
        subject = f'Revert "{found.commit.subject}"'
        return Change(
            edits=tuple(edits),
            message=message or f"{subject}\n\nThis takes back {revision}.",
            proposal=proposal,
        )

    async def changed_since(self, change: Change, base: str) -> list[str]:
        """Return the paths of which a change expects another version than ``base`` holds."""
        try:
            then = await self._branch.blobs(base, [one.path for one in change.edits])
        except Rejected:
            raise unknown_revision(base) from None
        return [one.path for one in change.edits if then.get(one.path, "") != one.expected]

    async def _content_of(
        self, path: str, before: Mapping[str, Held], after: Mapping[str, Held], now: Mapping[str, Held], tip: str
    ) -> bytes | None:
        held = [one[path].content if path in one else None for one in (before, after, now)]
        try:
            return taken_back(*held)
        except Unclear:
            (last, *_) = await commits_of(self._branch.mirror, tip, path, limit=1)
            text = (
                f"{path} was changed since in the same place: {last.revision[:12]}, "
                f'"{last.subject}" by {last.author_name}.'
            )
            hint = "Take that back first, or edit the file."
            commit = file_commit(last).model_dump(mode="json", by_alias=True)
            raise Refused(
                text, status=409, code="changed-since-revert", hint=hint, more={"path": path, "commit": commit}
            ) from None


def patches_by_path(text: str, paths: list[str]) -> dict[str, str]:
    """Cut the output of ``diff-tree -p`` into the patches of files, without their heads. The last may be cut off."""
    found: dict[str, str] = {}
    for piece in ("\n" + text).split("\ndiff --git ")[1:]:
        head, at, hunks = piece.partition("\n@@")
        name = next((path for path in paths if head.split("\n", 1)[0] == f"a/{path} b/{path}"), None)
        if name is not None:
            found[name] = f"@@{hunks.rstrip(chr(10))}\n" if at else ""
    return found


def _file_diff(path: str, was_there: bool, is_gone: bool, text: str | None) -> FileDiff:
    lines = (text or "").split("\n")
    return FileDiff(
        path=path,
        action="delete" if is_gone else "update" if was_there else "create",
        patch=(text or "")[:MAX_PATCH],
        added=sum(line.startswith("+") for line in lines),
        removed=sum(line.startswith("-") for line in lines),
        truncated=text is None or len(text) > MAX_PATCH,
    )
