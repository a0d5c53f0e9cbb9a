"""The bare mirror of the state repo: what the remote has, brought here once, and read from here.

1. ``head``: one ``ls-remote`` of one ref.
2. ``fetch``: nothing when the commit and all it reaches is here; else one ``fetch`` of exactly that commit into a
   private ref. A rewritten history is fetched too: ``descends`` tells the caller, who decides.
3. ``descends``, ``changes``, ``snapshot``, ``read``, ``commit``: local, read only, any number at a time.
4. Damage is noticed by git's own words or by something missing that was here: stale locks are removed; for the rest
   a new mirror is downloaded beside and renamed into place, and the call is repeated once.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from reconciler.desired.snapshot import Change, Snapshot
from reconciler.errors import Rejected, Transient
from reconciler.git.commits import LOG_FORMAT, CommitInfo, parse_log
from reconciler.git.failures import is_damage, is_refused_content, is_stale_lock, remote_failure, shortened
from reconciler.git.parsing import (
    BatchReader,
    TooLarge,
    Unreadable,
    is_id,
    parse_changes,
    parse_heads,
    parse_sizes,
    parse_tree,
)
from reconciler.git.remote import Remote
from reconciler.git.repository import Repository
from reconciler.git.runner import DEFAULT_LIMITS, Command, Finished, GitLimits, GitRunner
from reconciler.git.signatures import Signature, SigningKeys, Verifier

__all__ = ["CommitInfo", "GitLimits", "Mirror", "Signature", "SigningKeys", "TooLarge"]

T = TypeVar("T")
MAX_HEADS_BYTES: Final = 1 << 20
MAX_REMEMBERED: Final = 4096
TIDY_LOOSE: Final = 4096
TIDY_PACKS: Final = 40


class Mirror:
    """A mirror of one remote under ``directory``, which it owns. ``branch`` is the branch that counts."""

    def __init__(self, directory: Path, remote: Remote, branch: str, *, limits: GitLimits = DEFAULT_LIMITS) -> None:
        self.remote = remote
        self.branch = branch
        self.limits = limits
        self._repository = Repository(directory)
        self._runner = GitRunner(self._repository.home)
        self._verifier = Verifier(self._runner, self._repository.home)
        self._writing = asyncio.Lock()
        self._complete: set[str] = set()  # commits known to be here with all they reach
        self._announced = ""  # the newest answer of ``head``
        self._latest = ""  # the newest commit that was fetched, to rebuild from
        self._swept = False

    async def head(self) -> str:
        """Ask the remote for the tip of the branch.

        Returns:
            a full object id in hex.

        Raises:
            Transient: the remote does not answer, or refuses access.
            Rejected: there is no such branch (``BranchMissing``).
        """
        tips = await self.tips(self.branch)
        if self.branch not in tips:
            message = f'{self.remote} has no branch "{self.branch}".'
            raise Rejected(message, reason="BranchMissing", hint="Push the branch, or name another in the settings.")
        self._announced = tips[self.branch]
        return self._announced

    async def tips(self, *branches: str) -> Mapping[str, str]:
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
        finished = await self._runner.run(command)
        if finished.status != 0 or finished.too_much:
            words = "it lists more refs than asked for" if finished.too_much else finished.words
            raise remote_failure(self.remote, "asking for its branches", words)
        heads = parse_heads(finished.stdout)
        return {branch: heads[ref] for ref, branch in refs.items() if ref in heads}

    async def fetch(self, revision: str, *, branch: str | None = None) -> None:
        """Bring a commit and all it reaches here; no network when it is here.

        Args:
            revision: full object id.
            branch: branch that it was seen on, when it is not the mirror's.

        Raises:
            Transient: the remote is away, too slow, or no longer has the commit (``RemoteMoved``).
            Rejected: what it sends is too large or fails git's checks (``FetchRefused``).
        """
        _require_id(revision)
        async with self._writing:
            is_news = bool(self._complete) and revision == self._announced
            if revision not in self._complete and (is_news or not await self._is_complete(revision)):
                await self._download(revision, branch or self.branch)
            self._remember(revision)

    async def descends(self, revision: str, ancestor: str) -> bool:
        """Say whether ``ancestor`` is ``revision`` or in its history. ``revision`` must have been fetched."""
        arguments = ("merge-base", "--is-ancestor", _require_id(ancestor), _require_id(revision))
        try:
            finished = await self._local(arguments, (revision,), accepted=(0, 1))
        except Rejected:
            # The history of a complete commit is here as a whole: what is not here is not in it.
            if revision != ancestor and revision in self._complete and not await self._is_complete(ancestor):
                return False
            raise
        return finished.status == 0

    async def snapshot(self, revision: str) -> Snapshot:
        """List all files of a revision.

        Raises:
            Rejected: the revision is not here (``UnknownRevision``) or lists too much (``TooManyFiles``).
        """
        arguments = ("ls-tree", "-r", "-z", "--full-tree", "--end-of-options", _require_id(revision))
        finished = await self._local(arguments, (revision,))
        return Snapshot(revision, _parsed(parse_tree, finished.stdout))

    async def entries(self, revision: str, paths: Sequence[str]) -> Snapshot:
        """List ``paths`` of a revision: files, and what stands where a folder of theirs is expected.

        Raises:
            Rejected: as :meth:`snapshot`.
        """
        arguments = ("ls-tree", "-z", "--full-tree", "--end-of-options", _require_id(revision), "--", *paths)
        finished = await self._local(arguments, (revision,))
        return Snapshot(revision, _parsed(parse_tree, finished.stdout))

    async def changes(self, old: str, new: str) -> tuple[Change, ...]:
        """List what differs between two revisions, by path. Renames are a deletion and an addition.

        Raises:
            Rejected: as :meth:`snapshot`.
        """
        options = ("-r", "-z", "--no-renames", "--ignore-submodules=none", "--end-of-options")
        finished = await self._local(("diff-tree", *options, _require_id(old), _require_id(new)), (old, new))
        return _parsed(parse_changes, finished.stdout)

    async def read(self, blobs: Sequence[str], *, max_bytes: int = 65536) -> dict[str, bytes | TooLarge]:
        """Read the contents of ``blobs``, by id.

        One process when all are small; a blob over ``max_bytes`` costs two more, and is never read.

        Raises:
            Transient: a blob is missing and a new mirror did not bring it (``MirrorDamaged``).
        """
        wanted = [_require_id(blob) for blob in dict.fromkeys(blobs)]
        if not wanted:
            return {}
        epoch = self._repository.epoch
        reader, finished = await self._batch(wanted, max_bytes)
        if len(reader.contents) != len(wanted) and not reader.saw_too_large:
            await self._repair(epoch, finished, ())
            reader, finished = await self._batch(wanted, max_bytes)
        if reader.saw_too_large:
            return await self._read_small(wanted, max_bytes, reader.contents)
        if len(reader.contents) != len(wanted):
            raise _damaged(f"{len(wanted) - len(reader.contents)} blobs are missing. {shortened(finished.words)}")
        return dict(reader.contents)

    async def commit(self, revision: str) -> CommitInfo:
        """Describe a commit.

        Raises:
            Rejected: the revision is not here (``UnknownRevision``).
        """
        return (await self._log((revision,), limit=1))[0]

    async def commits_between(self, old: str | None, new: str, *, limit: int = 1000) -> tuple[CommitInfo, ...]:
        """Describe the commits of ``new`` that ``old`` does not have, newest first, at most ``limit``."""
        return await self._log((new,) if old is None else (new, old), limit=limit)

    async def signature(self, revision: str, keys: SigningKeys) -> Signature:
        """Check who signed a commit. Fails closed: without keys nothing is good."""
        variables, config = await self._verifier.prepare(keys)
        arguments = ("log", "-1", self._verifier.FORMAT, "--end-of-options", _require_id(revision))
        finished = await self._local(arguments, (revision,), variables=variables, config=config)
        return self._verifier.judge(finished.stdout, finished.words, keys)

    async def tidy(self) -> bool:
        """Pack loose objects and small packs into one, when there are many; say whether there were.

        Nothing is thrown away: after a rewritten history the last good revision is reached by no ref.
        """
        loose, packs = await asyncio.to_thread(self._repository.loose_and_packs)
        if loose < TIDY_LOOSE and packs < TIDY_PACKS:
            return False
        async with self._writing:
            arguments = ("repack", "-a", "-d", "--keep-unreachable", "--quiet", "--no-write-bitmap-index")
            finished = await self._runner.run(self._command(arguments, seconds=self.limits.fetch_seconds))
            if finished.status == 0:
                await self._runner.run(self._command(("prune-packed", "--quiet")))
        return finished.status == 0

    async def close(self) -> None:
        """Let the worker threads go. Calls under way must have been awaited or cancelled."""
        self._runner.close()

    # What write-back needs besides.

    async def run(self, command: Command) -> Finished:
        """Run a process on the mirror that writes no ref of it, as it is: no repair, no check of the status."""
        return await self._runner.run(command)

    async def write(self, arguments: Sequence[str], stdin: bytes) -> Finished:
        """Run a process that writes objects or refs of the mirror; repairs it and repeats once.

        Raises:
            Transient: it fails all the same (``MirrorDamaged``).
        """
        async with self._writing:
            return await self._local(arguments, (), stdin=stdin, is_writing=True)

    def repository_path(self) -> Path:
        """Return where the bare repository lies."""
        return self._repository.path

    def remember(self, revision: str) -> None:
        """Note that a commit made here is here with all it reaches."""
        self._remember(revision)

    # Local processes.

    def _command(
        self,
        arguments: Sequence[str],
        *,
        seconds: float | None = None,
        stdin: bytes | None = None,
        sink: Callable[[bytes], bool] | None = None,
        variables: Mapping[str, str] | None = None,
        config: Mapping[str, str] | None = None,
    ) -> Command:
        return Command(
            arguments,
            seconds=seconds or self.limits.local_seconds,
            git_dir=self._repository.path,
            stdin=stdin,
            sink=sink,
            variables=variables,
            config=config,
            max_output_bytes=self.limits.max_output_bytes,
        )

    async def _local(
        self,
        arguments: Sequence[str],
        revisions: Sequence[str],
        *,
        accepted: Sequence[int] = (0,),
        stdin: bytes | None = None,
        is_writing: bool = False,
        variables: Mapping[str, str] | None = None,
        config: Mapping[str, str] | None = None,
    ) -> Finished:
        """Run a process on the mirror; on damage repair and repeat once. ``revisions`` are those it needs."""
        command = self._command(arguments, stdin=stdin, variables=variables, config=config)
        for is_last in (False, True):
            epoch = self._repository.epoch
            finished = await self._runner.run(command)
            if finished.too_much:
                message = f"{revisions[-1] if revisions else 'The mirror'} lists more than fits into memory."
                raise Rejected(message, reason="TooManyFiles", hint="Remove files or folders from the repository.")
            if finished.status in accepted:
                return finished
            if is_last:
                break
            await self._require_known(revisions)
            await self._repair(epoch, finished, revisions, is_writing=is_writing)
        raise _damaged(shortened(finished.words))

    async def _require_known(self, revisions: Sequence[str]) -> None:
        """Keep a mistyped revision from being taken for damage."""
        for revision in revisions:
            if revision not in self._complete and not await self._is_complete(revision):
                message = f"{revision} is not a commit of {self.remote} that was fetched."
                raise Rejected(message, reason="UnknownRevision")

    async def _batch(self, wanted: Sequence[str], max_bytes: int) -> tuple[BatchReader, Finished]:
        reader = BatchReader(max_bytes)
        command = self._command(("cat-file", "--batch", "--buffer"), stdin=_lines(wanted), sink=reader.feed)
        try:
            return reader, await self._runner.run(command)
        except Unreadable as error:
            return reader, Finished(128, b"", str(error))

    async def _read_small(
        self, wanted: Sequence[str], max_bytes: int, contents: Mapping[str, bytes]
    ) -> dict[str, bytes | TooLarge]:
        """Go on after the first blob over the limit: ask for sizes, then for the small ones only."""
        rest = [blob for blob in wanted if blob not in contents]
        arguments = ("cat-file", "--batch-check", "--buffer")
        sizes = _parsed(parse_sizes, (await self._local(arguments, (), stdin=_lines(rest))).stdout)
        found: dict[str, bytes | TooLarge] = dict(contents)
        small = []
        for blob in rest:
            size = sizes.get(blob)
            if size is None:
                raise _damaged(f"blob {blob} is missing")
            if size > max_bytes:
                found[blob] = TooLarge(size)
            else:
                small.append(blob)
        return found | await self.read(small, max_bytes=max_bytes)

    async def _log(self, revisions: Sequence[str], *, limit: int) -> tuple[CommitInfo, ...]:
        names = [_require_id(revisions[0]), *(f"^{_require_id(old)}" for old in revisions[1:])]
        arguments = ("log", "-z", f"--max-count={limit}", f"--format={LOG_FORMAT}", "--end-of-options", *names)
        return _parsed(parse_log, (await self._local(arguments, revisions)).stdout)

    async def _is_complete(self, revision: str) -> bool:
        """Say whether a commit is here with all it reaches: git's own check after a download."""
        if not self._repository.exists():
            return False
        arguments = ("rev-list", "--quiet", "--objects", _require_id(revision), "--not", "--all")
        finished = await self._runner.run(self._command(arguments))
        if finished.status == 0:
            self._remember(revision)
        return finished.status == 0

    def _remember(self, revision: str) -> None:
        if len(self._complete) >= MAX_REMEMBERED:
            self._complete.clear()
        self._complete.add(revision)
        self._latest = revision

    # Downloads and repairs; ``_writing`` is held.

    async def _download(self, revision: str, branch: str) -> None:
        if not self._swept:
            await asyncio.to_thread(self._repository.sweep)
            self._swept = True
        if not self._repository.exists():
            await self._rebuild(revision, branch)
            return
        finished = await self._fetch_into(self._repository.path, revision, branch)
        if finished.status != 0 and is_stale_lock(finished.words):
            await asyncio.to_thread(self._repository.remove_locks)
            finished = await self._fetch_into(self._repository.path, revision, branch)
        if finished.status == 0:
            return
        if is_refused_content(finished.words) or not is_damage(finished.words):
            raise self._fetch_failure(finished)
        await self._rebuild(revision, branch)

    async def _fetch_into(self, path: Path, revision: str, branch: str) -> Finished:
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        refspec = f"+{revision}:refs/remotes/origin/{branch}"
        command = Command(
            ("fetch", *options, "--no-show-forced-updates", "--end-of-options", self.remote.url, refspec),
            seconds=self.limits.fetch_seconds,
            git_dir=path,
            remote=self.remote,
            max_file_bytes=self.limits.max_pack_bytes,
        )
        is_whole = False
        try:
            finished = await self._runner.run(command)
            is_whole = finished.status == 0
        finally:
            if not is_whole:
                await asyncio.to_thread(self._repository.remove_partial_packs)
        return finished

    async def _rebuild(self, revision: str, branch: str) -> None:
        """Download a new mirror beside the present one and put it in its place; on failure nothing changes."""
        fresh = await asyncio.to_thread(self._repository.place_for_rebuild)
        try:
            object_format = "sha256" if len(revision) == 64 else "sha1"
            options = ("--bare", "--quiet", "--template=", f"--object-format={object_format}", "--initial-branch=main")
            made = await self._runner.run(
                Command(("init", *options, "--end-of-options", str(fresh)), seconds=self.limits.local_seconds)
            )
            if made.status != 0:
                raise Transient(f"The mirror cannot be made: {shortened(made.words)}", reason="MirrorDamaged")
            finished = await self._fetch_into(fresh, revision, branch)
            if finished.status != 0:
                raise self._fetch_failure(finished)
            await asyncio.to_thread(self._repository.put_in_place, fresh)
        finally:
            await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
        self._complete.clear()
        self._remember(revision)

    async def _repair(
        self, epoch: int, finished: Finished, revisions: Sequence[str], *, is_writing: bool = False
    ) -> None:
        """Mend the mirror after a failure of a process that was started in ``epoch``."""
        if is_writing:
            await self._mend(epoch, finished, revisions)
            return
        async with self._writing:
            await self._mend(epoch, finished, revisions)

    async def _mend(self, epoch: int, finished: Finished, revisions: Sequence[str]) -> None:
        if self._repository.epoch != epoch:
            return
        if is_stale_lock(finished.words):
            await asyncio.to_thread(self._repository.remove_locks)
            return
        newest = revisions[-1] if revisions else self._latest
        await self._rebuild(newest or await self.head(), self.branch)
        for revision in revisions[:-1]:
            if not await self._is_complete(revision):
                await self._download(revision, self.branch)

    def _fetch_failure(self, finished: Finished) -> Exception:
        limit = self.limits.max_pack_bytes
        return remote_failure(self.remote, "fetching", finished.words, max_pack_bytes=limit)


def _require_id(text: str) -> str:
    """Return ``text`` when it is a full object id: whatever else stands there could be read as an option or a range.

    Raises:
        Rejected: it is not.
    """
    if not is_id(text):
        raise Rejected(f"{text[:80]!r} is not a full object id.", reason="UnknownRevision")
    return text


def _lines(ids: Sequence[str]) -> bytes:
    return "".join(f"{blob}\n" for blob in ids).encode("ascii")


def _parsed(parse: Callable[[bytes], T], output: bytes) -> T:
    try:
        return parse(output)
    except Unreadable as error:
        raise _damaged(str(error)) from None


def _damaged(why: str) -> Transient:
    return Transient(f"The mirror is damaged and could not be repaired: {why}", reason="MirrorDamaged")
