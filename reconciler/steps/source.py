"""Fetch a revision and decide whether it may be looked at: history only grows, and commits are signed where asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol

from reconciler.desired.parse import Parsed
from reconciler.desired.snapshot import Change, Snapshot, changes_between
from reconciler.desired.state import files_of
from reconciler.errors import Rejected
from reconciler.git.commits import CommitInfo
from reconciler.git.signatures import Signature, SigningKeys
from reconciler.steps.passing import Pass
from schemas.fleet import Fleet
from schemas.objects import FLEET_KEY
from schemas.status import CommitSummary

SignatureMode = Literal["none", "head", "strict"]
MAX_COMMITS = 1000


class Repository(Protocol):
    """What the source step needs of :class:`reconciler.git.mirror.Mirror`."""

    async def fetch(self, revision: str) -> None: ...
    async def descends(self, revision: str, ancestor: str) -> bool: ...
    async def snapshot(self, revision: str) -> Snapshot: ...
    async def changes(self, old: str, new: str) -> tuple[Change, ...]: ...
    async def commit(self, revision: str) -> CommitInfo: ...
    async def commits_between(self, old: str | None, new: str, *, limit: int = 1000) -> tuple[CommitInfo, ...]: ...
    async def signature(self, revision: str, keys: SigningKeys) -> Signature: ...


class Source:
    """``approved(checksum)`` says whether a person agreed to what a checksum stands for; ``own(revision)`` the only
    paths that a commit of the control plane changes, sorted, None for everybody else's.
    """

    def __init__(
        self,
        repository: Repository,
        keys: SigningKeys,
        approved: Callable[[str], Awaitable[bool]],
        own: Callable[[str], Awaitable[tuple[str, ...] | None]],
    ) -> None:
        self._repository = repository
        self._keys = keys
        self._approved = approved
        self._own = own

    async def describe(self, revision: str) -> CommitSummary:
        """Return who made the commit, what it says and when."""
        return _summary(await self._repository.commit(revision))

    async def fetch(self, this: Pass) -> None:
        """Bring the revision here and see what it is. The difference is asked for at once, whether it counts or not."""
        base, repository = this.base.revision, self._repository
        await repository.fetch(this.revision)
        commit, this.difference = await asyncio.gather(repository.commit(this.revision), self._difference(this))
        this.commit = _summary(commit)
        this.rewritten = base not in ("", this.revision, *commit.parents) and not await repository.descends(
            this.revision, base
        )

    async def _difference(self, this: Pass) -> tuple[Change, ...] | None:
        """Compare with what is published; None where git does not have that any more."""
        if not this.base.revision:
            return None
        with contextlib.suppress(Rejected):
            return await self._repository.changes(this.base.revision, this.revision)
        return None

    async def accept(self, this: Pass, mode: SignatureMode) -> None:
        """Raise Rejected when history was rewritten or a signature is missing, else list the changed files.

        ``mode`` is what the fleet in service asks for; where there is none, :meth:`check_first` follows the reading.
        """
        if this.rewritten:
            await self._require_approval(this)
        await self._check_signatures(this, mode)
        if this.difference is not None and not this.rewritten:
            this.changes = this.difference
        else:
            # git may not have the former revision any more, so what is in service says what was there
            files = (await self._repository.snapshot(this.revision)).files
            this.changes = changes_between(files_of(this.base.state), files)

    async def _require_approval(self, this: Pass) -> None:
        checksum = rewrite_checksum(this.base.revision, this.revision)
        if await self._approved(checksum):
            return
        raise Rejected(
            f"the branch was rewritten: {this.revision[:12]} does not descend from {this.base.revision[:12]}, which "
            "is published. What is published stays in service.",
            reason="HistoryRewritten",
            hint=f"Push a commit on top of {this.base.revision[:12]}, or approve the rewrite.",
            approve=checksum,
        )

    async def check_first(self, this: Pass) -> None:
        """Check the signature of a revision before which no fleet was in service, as its own fleet file asks for.

        Who gave keys wants them used: then it has to be signed whatever the file says, because whoever may leave out
        a signature may also leave out that sentence (docs/adr/0022).

        Raises:
            Rejected: ``SignatureMissing``.
        """
        fleet = next((one.object for one in this.news if isinstance(one, Parsed) and one.key == FLEET_KEY), None)
        mode: SignatureMode = fleet.spec.signatures.mode if isinstance(fleet, Fleet) else "none"
        is_signing = self._keys != SigningKeys()
        await self._check_signatures(this, "head" if mode == "none" and is_signing else mode)

    async def _check_signatures(self, this: Pass, mode: SignatureMode) -> None:
        """Check the newest commit, and in mode strict each one since the published revision.

        The first revision ever has nothing to start from: whoever signs it vouches for the history below it. Commits of
        the control plane itself need no signature, and vouch for nothing below them.
        """
        if mode == "none":
            return
        if mode == "strict" and this.base.revision:
            await self._check_each(this)
        else:
            await self._check_newest(this)

    async def _check_each(self, this: Pass) -> None:
        commits = await self._repository.commits_between(this.base.revision, this.revision, limit=MAX_COMMITS + 1)
        if len(commits) > MAX_COMMITS:
            raise _unsigned(f"more than {MAX_COMMITS} commits would have to be verified", "Push in smaller steps.")
        for commit in commits or (await self._repository.commit(this.revision),):
            if not await self._is_own(commit):
                await self._require_signature(commit.revision)

    async def _check_newest(self, this: Pass) -> None:
        """Check the newest commit that is not our own, unless it has been published."""
        commit = await self._repository.commit(this.revision)
        for _ in range(MAX_COMMITS):
            if not await self._is_own(commit):
                await self._require_signature(commit.revision)
                return
            (below,) = commit.parents
            if below == this.base.revision:
                return
            commit = await self._repository.commit(below)
        raise _unsigned(
            f"the newest {MAX_COMMITS} commits are the control plane's", "Push a signed commit on top of them."
        )

    async def _is_own(self, commit: CommitInfo) -> bool:
        """Say whether the control plane made this very commit, and it changes its files and nothing else."""
        paths = await self._own(commit.revision)
        if paths is None or len(commit.parents) != 1:
            return False
        changes = await self._repository.changes(commit.parents[0], commit.revision)
        return sorted(change.path for change in changes) == list(paths)

    async def _require_signature(self, revision: str) -> None:
        signature = await self._repository.signature(revision, self._keys)
        if not signature.good:
            raise _unsigned(
                f"commit {revision[:12]} has no good signature: {signature.reason}",
                "Sign it with a key that the control plane was given (CLOUDLUNACY_ALLOWED_SIGNERS).",
            )


def _unsigned(message: str, hint: str) -> Rejected:
    return Rejected(f"{message}.", reason="SignatureMissing", hint=hint)


def rewrite_checksum(base: str, revision: str) -> str:
    """Return what a person approves to let a rewritten history in: this step from base to revision, no other."""
    return f"rewrite:{base}..{revision}"


def _summary(commit: CommitInfo) -> CommitSummary:
    return CommitSummary(author=commit.author_name, subject=commit.subject, time=commit.time)
