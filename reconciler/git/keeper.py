"""Keeps the mirror whole: downloads into it, notices damage, repairs it.

Damage is noticed by git's own words, or by something missing that is known to have been here. Stale locks are removed;
for everything else a new mirror is downloaded beside and renamed into place, and the process is repeated once. Nothing
is thrown away before its replacement is complete.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from reconciler.errors import Rejected, Transient
from reconciler.git.failures import (
    is_damage,
    is_refused_content,
    is_stale_lock,
    remote_failure,
    shortened,
    too_large,
)
from reconciler.git.parsing import is_id, parse_heads
from reconciler.git.remote import Remote
from reconciler.git.repository import Repository, remove_partial_packs
from reconciler.git.runner import Command, Finished, GitLimits, GitRunner

MAX_HEADS_BYTES: Final = 1 << 20
MAX_REMEMBERED: Final = 4096
TIDY_LOOSE: Final = 4096
TIDY_PACKS: Final = 40


class Keeper:
    """Owns the repository under ``directory``: any number of processes read it, one at a time writes it."""

    def __init__(self, directory: Path, remote: Remote, branch: str, limits: GitLimits) -> None:
        self.remote = remote
        self.branch = branch
        self.limits = limits
        self.repository = Repository(directory)
        self.runner = GitRunner(self.repository.home)
        self._writing = asyncio.Lock()
        self._complete: set[str] = set()  # commits known to be here with all they reach
        self._latest = ""  # the newest of them on the branch, to rebuild from
        self._swept = False

    def command(self, *arguments: str) -> Command:
        """Return a local command on the repository, within the limits."""
        return Command(
            arguments,
            seconds=self.limits.local_seconds,
            git_dir=self.repository.path,
            max_output_bytes=self.limits.max_output_bytes,
        )

    async def tips(self, branches: Sequence[str]) -> Mapping[str, str]:
        """Ask the remote for the tips of ``branches`` with one process; a branch that it lacks is left out.

        Raises:
            Transient: the remote does not answer, or refuses access.
        """
        refs = {f"refs/heads/{branch}": branch for branch in branches}
        command = Command(
            ("ls-remote", "--quiet", "--end-of-options", self.remote.url, *refs),
            seconds=self.limits.head_seconds,
            remote=self.remote,
            max_output_bytes=MAX_HEADS_BYTES,
        )
        finished = await self.runner.run(command)
        if finished.status != 0 or finished.too_much:
            words = "it lists more refs than asked for" if finished.too_much else finished.words
            raise remote_failure(self.remote, "asking for its branches", words)
        heads = parse_heads(finished.stdout)
        return {branch: heads[ref] for ref, branch in refs.items() if ref in heads}

    async def bring(self, revision: str, branch: str, *, is_news: bool = False) -> None:
        """Have a commit and all it reaches here.

        Args:
            revision: full object id.
            branch: branch of the remote that it was seen on.
            is_news: the remote has just named it for the first time, so looking here first is a waste.

        Raises:
            Transient: the remote is away, too slow, or no longer has the commit.
            Rejected: what it sends is too large or fails git's checks (``FetchRefused``).
        """
        async with self._writing:
            if revision not in self._complete:
                skip_look = is_news and bool(self._complete)
                if skip_look or not await self.is_complete(revision):
                    await self._download(revision, branch)
            self.remember(revision)
            if branch == self.branch:
                self._latest = revision

    async def local(self, command: Command, revisions: Sequence[str], *, accepted: Sequence[int] = (0,)) -> Finished:
        """Run a process that reads the repository; on damage repair and repeat once.

        Args:
            command: as made by :meth:`command`.
            revisions: the commits it needs; the last one is the newest.
            accepted: exit statuses that are answers.

        Raises:
            Rejected: a revision was never here (``UnknownRevision``), or there is too much output (``TooManyFiles``).
            Transient: it fails after the repair as well (``MirrorDamaged``), or the remote is away just now.
        """
        for is_last in (False, True):
            epoch = self.repository.epoch
            finished = await self.runner.run(command)
            if finished.too_much:
                message = f"{revisions[-1] if revisions else 'The mirror'} lists more than fits into memory."
                raise Rejected(message, reason="TooManyFiles", hint="Remove files or folders from the repository.")
            if finished.status in accepted:
                return finished
            if not is_last:
                await self._require_known(revisions)
                await self.repair(epoch, finished.words, revisions)
        raise damaged(shortened(finished.words))

    async def write(self, command: Command) -> Finished:
        """Run a process that writes objects or refs; on damage repair and repeat once.

        Raises:
            Transient: it fails after the repair as well (``MirrorDamaged``), or the remote is away just now.
        """
        async with self._writing:
            epoch = self.repository.epoch
            finished = await self.runner.run(command)
            if finished.status != 0:
                await self._mend(epoch, finished.words, ())
                finished = await self.runner.run(command)
        if finished.status != 0:
            raise damaged(shortened(finished.words))
        return finished

    async def repair(self, epoch: int, words: str, revisions: Sequence[str]) -> None:
        """Mend the repository after a failure of a process that was started in ``epoch``.

        Raises:
            Transient, Rejected: as :meth:`bring`.
        """
        async with self._writing:
            await self._mend(epoch, words, revisions)

    async def is_complete(self, revision: str) -> bool:
        """Say whether a commit is here with all it reaches: git's own check after a download."""
        if revision in self._complete:
            return True
        if not self.repository.exists():
            return False
        command = self.command("rev-list", "--quiet", "--objects", require_id(revision), "--not", "--all")
        return (await self.runner.run(command)).status == 0

    def remember(self, revision: str) -> None:
        """Note that a commit is here with all it reaches."""
        if len(self._complete) >= MAX_REMEMBERED:
            self._complete.clear()
        self._complete.add(revision)

    async def tidy(self) -> bool:
        """Pack loose objects and small packs into one when there are many; say whether that was done.

        Nothing is thrown away: after a rewritten history no ref reaches the last good revision.
        """
        loose, packs = await asyncio.to_thread(self.repository.loose_and_packs)
        if loose < TIDY_LOOSE and packs < TIDY_PACKS:
            return False
        repack = self.command("repack", "-a", "-d", "--keep-unreachable", "--quiet")
        async with self._writing:
            finished = await self.runner.run(replace(repack, seconds=self.limits.fetch_seconds))
        return finished.status == 0

    async def _require_known(self, revisions: Sequence[str]) -> None:
        """Keep a mistyped revision from being taken for damage."""
        for revision in revisions:
            if not await self.is_complete(revision):
                message = f"{revision} is not a commit of {self.remote} that was fetched."
                raise Rejected(message, reason="UnknownRevision")

    # ``_writing`` is held in everything below.

    async def _download(self, revision: str, branch: str) -> None:
        if not self._swept:
            await asyncio.to_thread(self.repository.sweep)
            self._swept = True
        if not self.repository.exists():
            await self._rebuild(revision, branch)
            return
        finished = await self._fetch_into(self.repository.path, revision, branch)
        if finished.status != 0 and is_stale_lock(finished.words):
            await asyncio.to_thread(self.repository.remove_locks)
            finished = await self._fetch_into(self.repository.path, revision, branch)
        if finished.status == 0:
            return
        if is_refused_content(finished.words) or not is_damage(finished.words):
            raise remote_failure(self.remote, "fetching", finished.words)
        await self._rebuild(revision, branch)

    async def _fetch_into(self, path: Path, revision: str, branch: str) -> Finished:
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        # Two fixed names: a ref for each branch that ever was would pile up, and names can exclude each other.
        refspec = f"+{revision}:refs/fetched/{'followed' if branch == self.branch else 'another'}"
        command = Command(
            ("fetch", *options, "--no-show-forced-updates", "--end-of-options", self.remote.url, refspec),
            seconds=self.limits.fetch_seconds,
            git_dir=path,
            remote=self.remote,
            max_file_bytes=self.limits.max_pack_bytes,
        )
        is_whole, left_bytes = False, 0
        try:
            finished = await self.runner.run(command)
            is_whole = finished.status == 0
        finally:
            if not is_whole:
                left_bytes = await asyncio.to_thread(remove_partial_packs, path)
        # git does not say that its helper died at the limit; the size of what it left does.
        if left_bytes >= self.limits.max_pack_bytes:
            raise too_large(self.remote, self.limits.max_pack_bytes)
        return finished

    async def _rebuild(self, revision: str, branch: str) -> None:
        """Download a new mirror beside the present one and put it in its place; on failure nothing changes."""
        fresh = await asyncio.to_thread(self.repository.place_for_rebuild)
        try:
            object_format = "sha256" if len(revision) == 64 else "sha1"
            options = ("--bare", "--quiet", "--template=", f"--object-format={object_format}", "--initial-branch=main")
            init = Command(("init", *options, "--end-of-options", str(fresh)), seconds=self.limits.local_seconds)
            made = await self.runner.run(init)
            if made.status != 0:
                raise damaged(f"a new one cannot be made: {shortened(made.words)}")
            finished = await self._fetch_into(fresh, revision, branch)
            if finished.status != 0:
                raise remote_failure(self.remote, "fetching", finished.words)
            await asyncio.to_thread(self.repository.put_in_place, fresh)
        finally:
            await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
        self._complete.clear()
        self.remember(revision)

    async def _mend(self, epoch: int, words: str, revisions: Sequence[str]) -> None:
        if self.repository.epoch != epoch:
            return
        if is_stale_lock(words):
            await asyncio.to_thread(self.repository.remove_locks)
            return
        newest = revisions[-1] if revisions else self._latest or (await self.tips([self.branch])).get(self.branch)
        if newest is None:
            raise damaged(f'{self.remote} has no branch "{self.branch}" to rebuild it from')
        await self._rebuild(newest, self.branch)
        for revision in revisions[:-1]:
            if not await self.is_complete(revision):
                await self._download(revision, self.branch)


def require_id(text: str) -> str:
    """Return ``text`` when it is a full object id: whatever else stands there could be read as an option or a range.

    Raises:
        Rejected: it is not (``UnknownRevision``).
    """
    if not is_id(text):
        raise Rejected(f"{text[:80]!r} is not a full object id.", reason="UnknownRevision")
    return text


def damaged(why: str) -> Transient:
    """Return the error for a mirror that stays damaged."""
    return Transient(f"The mirror is damaged and could not be repaired: {why}", reason="MirrorDamaged")
