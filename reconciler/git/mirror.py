"""The bare mirror of the state repo: what the remote has, brought here once, and read from here.

1. ``head``: one ``ls-remote`` of one ref.
2. ``fetch``: nothing when the commit and all it reaches is here; else one ``fetch`` of exactly that commit into a
   private ref. A rewritten history is fetched too: ``descends`` tells the caller, who decides.
3. ``descends``, ``changes``, ``snapshot``, ``read``, ``commit``: local, read only, any number at a time. Damage that
   they meet is repaired behind them (:mod:`reconciler.git.keeper`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from reconciler.desired.snapshot import Change, Snapshot
from reconciler.errors import Rejected
from reconciler.git.commits import LOG_FORMAT, CommitInfo, parse_log
from reconciler.git.failures import shortened
from reconciler.git.keeper import Keeper, damaged, require_id
from reconciler.git.parsing import BatchReader, TooLarge, Unreadable, parse_changes, parse_sizes, parse_tree
from reconciler.git.remote import Remote
from reconciler.git.runner import DEFAULT_LIMITS, Finished, GitLimits
from reconciler.git.signatures import SIGNATURE_FORMAT, Signature, SigningKeys, Verifier, verdict

__all__ = ["CommitInfo", "GitLimits", "Mirror", "Signature", "SigningKeys", "TooLarge"]

T = TypeVar("T")


class Mirror:
    """A mirror of one remote under ``directory``, which it owns. ``branch`` is the branch that counts."""

    def __init__(self, directory: Path, remote: Remote, branch: str, *, limits: GitLimits = DEFAULT_LIMITS) -> None:
        self.remote = remote
        self.branch = branch
        self.keeper = Keeper(directory, remote, branch, limits)
        self._verifier = Verifier(self.keeper.runner, self.keeper.repository.home)
        self._announced = ""  # the newest answer of ``head``

    async def head(self) -> str:
        """Ask the remote for the tip of the branch.

        Returns:
            a full object id in hex.

        Raises:
            Transient: the remote does not answer, or refuses access.
            Rejected: there is no such branch (``BranchMissing``).
        """
        tips = await self.keeper.tips([self.branch])
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
        return await self.keeper.tips(branches)

    async def fetch(self, revision: str, *, branch: str | None = None) -> None:
        """Bring a commit and all it reaches here; no network when it is here.

        Args:
            revision: full object id.
            branch: branch that it was seen on, when it is not the mirror's.

        Raises:
            Transient: the remote is away, too slow, or no longer has the commit (``RemoteMoved``).
            Rejected: what it sends is too large or fails git's checks (``FetchRefused``).
        """
        is_news = revision == self._announced
        await self.keeper.bring(require_id(revision), branch or self.branch, is_news=is_news)

    async def descends(self, revision: str, ancestor: str) -> bool:
        """Say whether ``ancestor`` is ``revision`` or in its history. ``revision`` must have been fetched.

        Raises:
            Rejected: ``revision`` is not here (``UnknownRevision``).
        """
        command = self.keeper.command("merge-base", "--is-ancestor", require_id(ancestor), require_id(revision))
        try:
            return (await self.keeper.local(command, (ancestor, revision), accepted=(0, 1))).status == 0
        except Rejected:
            # The history of a complete commit is here as a whole: what is not here is not in it.
            if await self.keeper.is_complete(revision):
                return False
            raise

    async def snapshot(self, revision: str) -> Snapshot:
        """List all files of a revision.

        Raises:
            Rejected: the revision is not here (``UnknownRevision``) or lists too much (``TooManyFiles``).
        """
        command = self.keeper.command("ls-tree", "-r", "-z", "--full-tree", "--end-of-options", require_id(revision))
        finished = await self.keeper.local(command, (revision,))
        return Snapshot(revision, _parsed(parse_tree, finished))

    async def entries(self, revision: str, paths: Sequence[str]) -> Snapshot:
        """List what stands at ``paths`` in a revision, folders as themselves (mode 040000).

        Raises:
            Rejected: as :meth:`snapshot`.
        """
        options = ("-z", "--full-tree", "--end-of-options", require_id(revision), "--")
        finished = await self.keeper.local(self.keeper.command("ls-tree", *options, *paths), (revision,))
        return Snapshot(revision, _parsed(parse_tree, finished))

    async def changes(self, old: str, new: str) -> tuple[Change, ...]:
        """List what differs between two revisions, by path. A rename is a deletion and an addition.

        Raises:
            Rejected: as :meth:`snapshot`.
        """
        options = ("-r", "-z", "--no-renames", "--no-abbrev", "--ignore-submodules=none", "--end-of-options")
        command = self.keeper.command("diff-tree", *options, require_id(old), require_id(new))
        return _parsed(parse_changes, await self.keeper.local(command, (old, new)))

    async def read(self, blobs: Sequence[str], *, max_bytes: int = 65536) -> dict[str, bytes | TooLarge]:
        """Read the contents of ``blobs``, by id.

        One process when all are small; once a blob is over ``max_bytes`` two more, and it is never read. The id of a
        submodule (mode 160000) is no blob: it would be taken for a missing one.

        Raises:
            Transient: a blob is missing and a new mirror did not bring it (``MirrorDamaged``).
        """
        wanted = [require_id(blob) for blob in dict.fromkeys(blobs)]
        if not wanted:
            return {}
        epoch = self.keeper.repository.epoch
        reader, words = await self._batch(wanted, max_bytes)
        if len(reader.contents) != len(wanted) and not reader.saw_too_large:
            await self.keeper.repair(epoch, words, ())
            reader, words = await self._batch(wanted, max_bytes)
        if reader.saw_too_large:
            return await self._read_small(wanted, max_bytes, reader.contents)
        if len(reader.contents) != len(wanted):
            raise damaged(f"{len(wanted) - len(reader.contents)} blobs are missing. {shortened(words)}".rstrip())
        return dict(reader.contents)

    async def commit(self, revision: str) -> CommitInfo:
        """Describe a commit.

        Raises:
            Rejected: the revision is not here (``UnknownRevision``).
        """
        return (await self._log((revision,), limit=1))[0]

    async def commits_between(self, old: str | None, new: str, *, limit: int = 1000) -> tuple[CommitInfo, ...]:
        """Describe the commits of ``new`` that ``old`` does not have, newest first, at most ``limit``.

        Raises:
            Rejected: a revision is not here (``UnknownRevision``).
        """
        return await self._log((new,) if old is None else (old, new), limit=limit)

    async def signature(self, revision: str, keys: SigningKeys) -> Signature:
        """Check who signed a commit. Fails closed: without keys nothing is good.

        Raises:
            Rejected: the revision is not here (``UnknownRevision``).
            Broken: a file of keys cannot be read.
        """
        variables, config = await self._verifier.prepare(keys)
        command = self.keeper.command("log", "-1", SIGNATURE_FORMAT, "--end-of-options", require_id(revision))
        finished = await self.keeper.local(replace(command, variables=variables, config=config), (revision,))
        return verdict(finished.stdout, finished.words, keys)

    async def tidy(self) -> bool:
        """Pack loose objects and small packs into one when there are many; say whether that was done."""
        return await self.keeper.tidy()

    async def close(self) -> None:
        """Let the worker threads go. Calls under way must have been awaited or cancelled."""
        self.keeper.runner.close()

    async def _batch(self, wanted: Sequence[str], max_bytes: int) -> tuple[BatchReader, str]:
        """Read until the end or the first blob over the limit; also return git's words."""
        reader = BatchReader(max_bytes)
        command = self.keeper.command("cat-file", "--batch", "--buffer")
        try:
            finished = await self.keeper.runner.run(replace(command, stdin=_lines(wanted), sink=reader.feed))
        except Unreadable as error:
            return reader, str(error)
        return reader, finished.words

    async def _read_small(
        self, wanted: Sequence[str], max_bytes: int, contents: Mapping[str, bytes]
    ) -> dict[str, bytes | TooLarge]:
        """Go on after the first blob over the limit: ask for sizes, then for the small ones only."""
        rest = [blob for blob in wanted if blob not in contents]
        command = self.keeper.command("cat-file", "--batch-check", "--buffer")
        sizes = _parsed(parse_sizes, await self.keeper.local(replace(command, stdin=_lines(rest)), ()))
        found: dict[str, bytes | TooLarge] = dict(contents)
        large = {blob: TooLarge(size) for blob in rest if (size := sizes.get(blob)) is not None and size > max_bytes}
        small = [blob for blob in rest if blob not in large]
        return found | large | await self.read(small, max_bytes=max_bytes)

    async def _log(self, revisions: Sequence[str], *, limit: int) -> tuple[CommitInfo, ...]:
        *old, new = map(require_id, revisions)
        options = ("-z", f"--max-count={limit}", f"--format={LOG_FORMAT}", "--end-of-options")
        command = self.keeper.command("log", *options, new, *(f"^{revision}" for revision in old))
        return _parsed(parse_log, await self.keeper.local(command, revisions))


def _lines(ids: Sequence[str]) -> bytes:
    return "".join(f"{blob}\n" for blob in ids).encode("ascii")


def _parsed(parse: Callable[[bytes], T], finished: Finished) -> T:
    try:
        return parse(finished.stdout)
    except Unreadable as error:
        raise damaged(str(error)) from None
