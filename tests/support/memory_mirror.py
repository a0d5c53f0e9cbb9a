"""A mirror of git in memory: what the steps of a pass ask of :class:`reconciler.git.mirror.Mirror`, and a parse cache.

A test pushes commits and says what of them can be had: ``unreachable`` commits cannot be fetched, ``forgotten`` ones
are not there any more, and only those in ``signed`` have a good signature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from reconciler.desired.snapshot import REGULAR_FILE, Change, File, Snapshot, changes_between
from reconciler.errors import Rejected, Transient
from reconciler.git.commits import CommitInfo
from reconciler.git.mirror import TooLarge
from reconciler.git.signatures import Signature, SigningKeys
from tests.support.documents import blob_of

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass
class MemoryMirror:
    """Implements ``reconciler.steps.source.Repository`` and ``reconciler.steps.reading.Blobs``."""

    head: str = ""
    commits: dict[str, CommitInfo] = field(default_factory=dict)
    files: dict[str, dict[str, File]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    unreachable: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)
    signed: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    """Each question, in order; for ``read`` the number of blobs."""

    def push(
        self,
        changed: Mapping[str, bytes | None],
        *,
        onto: str | None = None,
        merging: str = "",
        subject: str = "Change",
    ) -> str:
        """Commit on top of the branch, or of ``onto`` (empty: of nothing), and return the revision."""
        parent = self.head if onto is None else onto
        number = len(self.commits) + 1
        revision = f"{number:x}" * 40 if number < 16 else f"{number:040x}"
        tree = dict(self.files.get(parent, {}))
        for path, content in changed.items():
            tree.pop(path, None)
            if content is not None:
                blob = blob_of(content)
                self.blobs[blob] = content
                tree[path] = File(REGULAR_FILE, blob)
        parents = tuple(filter(None, (parent, merging)))
        time = START + timedelta(seconds=number)
        self.commits[revision] = CommitInfo(revision, parents, "Ada", "ada@example.test", subject, time, {})
        self.files[revision] = tree
        self.head = revision
        return revision

    async def fetch(self, revision: str) -> None:
        self.asked.append("fetch")
        if revision in self.unreachable:
            raise Transient("the remote is away.", reason="RemoteUnavailable")

    async def descends(self, revision: str, ancestor: str) -> bool:
        self.asked.append("descends")
        return ancestor in self._history(revision)

    async def snapshot(self, revision: str) -> Snapshot:
        self.asked.append("snapshot")
        return Snapshot(self._known(revision), self.files[revision])

    async def changes(self, old: str, new: str) -> tuple[Change, ...]:
        self.asked.append("changes")
        return changes_between(self.files[self._known(old)], self.files[self._known(new)])

    async def commit(self, revision: str) -> CommitInfo:
        self.asked.append("commit")
        return self.commits[self._known(revision)]

    async def commits_between(self, old: str | None, new: str, *, limit: int = 1000) -> tuple[CommitInfo, ...]:
        self.asked.append("commits_between")
        wanted = self._history(new) - (self._history(old) if old else set())
        found = [one for name, one in self.commits.items() if name in wanted]
        return tuple(reversed(found))[:limit]

    async def signature(self, revision: str, keys: SigningKeys) -> Signature:
        self.asked.append(f"signature {revision[:1]}")
        if revision in self.signed:
            return Signature(True, "ada", "")
        return Signature(False, "", "it is not signed")

    async def read(self, blobs: Sequence[str], *, max_bytes: int = 65536) -> dict[str, bytes | TooLarge]:
        self.asked.append(f"read {len(blobs)}")
        contents = {blob: self.blobs[blob] for blob in blobs}
        return {b: TooLarge(len(content)) if len(content) > max_bytes else content for b, content in contents.items()}

    def _known(self, revision: str) -> str:
        if revision not in self.commits or revision in self.forgotten:
            raise Rejected(f"{revision[:12]} is not here.", reason="UnknownRevision")
        return revision

    def _history(self, revision: str) -> set[str]:
        found: set[str] = set()
        waiting = [revision]
        while waiting:
            one = waiting.pop()
            if one not in found and one in self.commits:
                found.add(one)
                waiting += self.commits[one].parents
        return found


class MemoryCache:
    """Implements ``reconciler.steps.reading.Cache``."""

    def __init__(self) -> None:
        self.tree: dict[str, tuple[str, bytes]] = {}

    def load_tree(self) -> list[tuple[str, str, bytes]]:
        return [(path, blob, document) for path, (blob, document) in self.tree.items()]

    def lookup(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
        found = {pair: self.tree.get(pair[0], ("", b"")) for pair in pairs}
        return {pair: document for pair, (blob, document) in found.items() if blob == pair[1]}

    def replace(self, changed: Sequence[tuple[str, str, bytes]], removed: Sequence[str]) -> None:
        self.tree |= {path: (blob, document) for path, blob, document in changed}
        for path in removed:
            self.tree.pop(path, None)
