"""A remote branch in memory with the interface of ``reconciler.git.WriteBack``: edits are run, races are replayed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from reconciler.desired.edits import AlreadyThere, CommitRequest, Committed, Conflicted, EditConflict, Outcome


@dataclass(frozen=True)
class Pushed:
    tip: str
    outcomes: Mapping[str, Outcome]


class MemoryRemote:
    """Branches are maps of path to content. ``failures`` are raised by the next pushes, one each, before anything."""

    def __init__(self, files: Mapping[str, bytes] | None = None, seconds: float = 0.0) -> None:
        self.branches: dict[str, dict[str, bytes]] = {"main": dict(files or {})}
        self.log: list[CommitRequest] = []
        self.pushes: list[int] = []
        self.failures: list[BaseException] = []
        self.lose_answers: list[BaseException] = []
        self.refuse: Callable[[CommitRequest], BaseException | None] = lambda _: None
        self._seconds = seconds

    @property
    def main(self) -> dict[str, bytes]:
        return self.branches["main"]

    async def push(
        self, commits: Sequence[CommitRequest], *, branch: str, base: str | None = None, repeated: Collection[str] = ()
    ) -> Pushed:
        await asyncio.sleep(self._seconds)
        if self.failures:
            raise self.failures.pop(0)
        for commit in commits:
            if error := self.refuse(commit):
                raise error
        files = dict(self.branches.get(branch) or self.branches[base or branch])
        there = {commit.id for commit in self.log} & set(repeated)
        outcomes = {
            commit.id: Committed(self._revision()) if commit.id in there else self._apply(commit, files)
            for commit in commits
        }
        self.branches[branch] = files
        self.pushes.append(len(commits))
        if self.lose_answers:
            raise self.lose_answers.pop(0)
        return Pushed(self._revision(), outcomes)

    def _apply(self, commit: CommitRequest, files: dict[str, bytes]) -> Outcome:
        try:
            wanted = {path: edit(files.get(path)) for path, edit in commit.edits.items()}
        except EditConflict as conflict:
            return Conflicted(str(conflict))
        if all(content == files.get(path) for path, content in wanted.items()):
            return AlreadyThere(self._revision())
        for path, content in wanted.items():
            files.pop(path, None)
            if content is not None:
                files[path] = content
        self.log.append(commit)
        return Committed(self._revision())

    def _revision(self) -> str:
        return hashlib.sha1(str(len(self.log)).encode()).hexdigest()
