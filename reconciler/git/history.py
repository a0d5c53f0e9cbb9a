"""What commits did, for people: who changed a file, and what a commit changed. Read only, bounded in size and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from reconciler.desired.snapshot import Change
from reconciler.errors import Rejected
from reconciler.git.commits import LOG_FORMAT, CommitInfo, parse_log
from reconciler.git.keeper import damaged
from reconciler.git.mirror import Mirror
from reconciler.git.parsing import Unreadable, is_id

SECONDS: Final = 10.0
"""That one question may take."""
EMPTY_TREE: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
EMPTY_TREE_SHA256: Final = "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"
MAX_PATCH: Final = 512 * 1024
"""Bytes of all patches of a commit."""


@dataclass(frozen=True, slots=True)
class CommitChanges:
    """A commit, what it is compared with (its first parent, empty for the first commit), and what differs."""

    commit: CommitInfo
    parent: str
    changes: tuple[Change, ...]


async def resolve(mirror: Mirror, name: str) -> str:
    """Return the full id of a commit that is here; ``name`` is its id, or the beginning of it (7 digits or more).

    Raises:
        Rejected: it is not here, or several begin so (``UnknownRevision``).
    """
    if is_id(name):
        return (await mirror.commit(name)).revision
    command = mirror.keeper.command("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    finished = await mirror.keeper.local(command, (), accepted=(0, 1, 128))
    found = finished.stdout.decode("ascii", "replace").strip()
    if finished.status != 0 or not is_id(found):
        raise Rejected(f"There is no commit {name}.", reason="UnknownRevision")
    return found


async def commits_of(
    mirror: Mirror, revision: str, path: str, *, since: str = "", limit: int = 50
) -> tuple[CommitInfo, ...]:
    """Describe the commits of ``revision`` that changed ``path``, newest first; only those that ``since`` has not.

    Raises:
        Rejected: a revision is not here (``UnknownRevision``).
    """
    ends = (revision, *([f"^{since}"] if since else []))
    options = ("-z", f"--max-count={limit}", f"--format={LOG_FORMAT}", "--end-of-options")
    command = mirror.keeper.command("log", *options, *ends, "--", path)
    finished = await mirror.keeper.local(replace(command, seconds=SECONDS), (revision,))
    try:
        return parse_log(finished.stdout)
    except Unreadable as error:
        raise damaged(str(error)) from None


async def changes_of(mirror: Mirror, revision: str) -> CommitChanges:
    """Compare a commit with its first parent, or with nothing.

    Raises:
        Rejected: the revision is not here (``UnknownRevision``).
    """
    commit = await mirror.commit(revision)
    parent = commit.parents[0] if commit.parents else ""
    if parent:
        return CommitChanges(commit, parent, await mirror.changes(parent, revision))
    files = (await mirror.snapshot(revision)).files
    return CommitChanges(commit, "", tuple(Change(path, file) for path, file in sorted(files.items())))


async def patch(mirror: Mirror, parent: str, revision: str, paths: Sequence[str]) -> str:
    """Return the unified diff of some files between two commits; ``parent`` empty: between nothing and the commit.

    What is longer than :data:`MAX_PATCH` is cut off at the end of a line.

    Raises:
        Rejected: a revision is not here (``UnknownRevision``).
    """
    if not paths:
        return ""
    base = parent or (EMPTY_TREE if len(revision) == len(EMPTY_TREE) else EMPTY_TREE_SHA256)
    options = ("-r", "-p", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv", "--unified=3")
    kept = bytearray()

    def keep(piece: bytes) -> bool:
        kept.extend(piece)
        return len(kept) <= MAX_PATCH

    command = mirror.keeper.command("diff-tree", *options, "--end-of-options", base, revision, "--", *paths)
    await mirror.keeper.runner.run(replace(command, seconds=SECONDS, sink=keep))
    text = bytes(kept[:MAX_PATCH]).decode("utf-8", "replace")
    return text if len(kept) <= MAX_PATCH else text[: text.rfind("\n") + 1]
