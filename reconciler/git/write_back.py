"""Commits of our own on a branch of the remote: one commit a request, one push for all (ADR 0003).

1. The tip: one ``ls-remote``, and a fetch when it is new.
2. The present content of the files that the requests name, and the edits on it, in order.
3. The commits, built on the tip by one ``fast-import``; then a look that nothing but the named files differs.
4. One push that succeeds only if the branch still is at the tip. It can drop nobody's commit: ours descend from what
   it replaces.
5. Lost the race: from 1, with the edits run again on the new tip. No answer (a time-out, a cut line): from 1 as well;
   when the remote has our commits, they are not made twice.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from reconciler.desired.edits import AlreadyThere, CommitRequest, Committed, Conflicted, Outcome
from reconciler.desired.snapshot import REGULAR_FILE
from reconciler.errors import Rejected, Transient
from reconciler.git.failures import is_no_answer, remote_failure, remote_words
from reconciler.git.fast_import import Decision, Identity, Standing, Written, decide, stream
from reconciler.git.keeper import damaged
from reconciler.git.mirror import Mirror
from reconciler.git.parsing import is_id, parse_push
from reconciler.git.runner import Command

CONTROL_PLANE: Final = Identity("CloudLunacy", "cloudlunacy@localhost")
MAX_FILE_BYTES: Final = 1024 * 1024
TRIES: Final = 8
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 2.0
_OUTGOING: Final = "refs/outgoing/last"
_BRANCH: Final = re.compile(r"(?!.*(?:\.\.|//|\.lock(?:/|$)|/\.|\.$|/$))[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_PATH: Final = re.compile(r"(?!.*(?:^|/)(?:\.{1,2}|\.git)(?:/|$))[A-Za-z0-9._-][A-Za-z0-9._/ @+-]*")

_RACES: Final = re.compile(
    r"(?i)cannot lock ref|failed to update ref|fetch first|non-fast-forward|stale info|reference already exists"
    r"|incorrect old value|failed to lock"
)
_UNKNOWN_OUTCOMES: Final = frozenset({"GitTimeout", "RemoteUnavailable"})

Jitter = Callable[[float], float]
"""Most seconds to wait → seconds to wait."""


def full_jitter(most: float) -> float:
    """Return a random part of ``most`` seconds, so that two writers do not meet again."""
    return random.uniform(0.0, most)  # noqa: S311


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of the requests. ``tip`` is the branch's commit that the outcomes are true for."""

    tip: str
    outcomes: Mapping[str, Outcome]
    """By request id."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """The requests, decided and built on one tip."""

    base: str
    tip: str
    outcomes: Mapping[str, Outcome]


class WriteBack:
    """Writes to the remote of ``mirror``: only files whose path ``allowed`` matches as a whole."""

    def __init__(
        self,
        mirror: Mirror,
        *,
        allowed: re.Pattern[str],
        committer: Identity = CONTROL_PLANE,
        tries: int = TRIES,
        jitter: Jitter = full_jitter,
    ) -> None:
        self._mirror = mirror
        self._allowed = allowed
        self._committer = committer
        self._tries = tries
        self._jitter = jitter
        self._pushing = asyncio.Lock()

    async def push(self, commits: Sequence[CommitRequest], *, branch: str, base: str | None = None) -> Pushed:
        """Bring one commit a request to ``branch`` of the remote, in their order, with one push.

        Args:
            commits: requests with ids of their own.
            branch: name without ``refs/heads/``.
            base: branch from whose tip ``branch`` is made when the remote lacks it.

        Raises:
            Transient: the remote is away (nothing is known to be lost: ask again with the same requests), or the race
                was lost too often (``PushRace``).
            Rejected: the remote's rules refuse the push (``PushRefused``), or neither branch is there
                (``BranchMissing``).
        """
        _require_branch(branch)
        async with self._pushing:
            unanswered: _Batch | None = None
            for attempt in range(self._tries):
                if attempt:
                    most = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1))
                    await asyncio.sleep(self._jitter(most))
                tip, is_new = await self._tip(branch, base)
                if unanswered and not is_new and await self._mirror.descends(tip, unanswered.tip):
                    return Pushed(tip, unanswered.outcomes)
                batch = await self._build(commits, tip)
                if batch.tip == batch.base:
                    return Pushed(tip, batch.outcomes)
                try:
                    if await self._send(batch, branch, is_new=is_new):
                        self._mirror.keeper.remember(batch.tip)
                        return Pushed(batch.tip, batch.outcomes)
                except Transient as failure:
                    if unanswered or failure.reason not in _UNKNOWN_OUTCOMES:
                        raise
                    unanswered = batch
            raise Transient(
                f'{self._mirror.remote}: others pushed to "{branch}" {self._tries} times while we tried to.',
                reason="PushRace",
            )

    async def _tip(self, branch: str, base: str | None) -> tuple[str, bool]:
        """Return the commit to build on, here and complete, and whether the branch has to be made."""
        names = [branch] if base is None or base == branch else [branch, _require_branch(base)]
        tips = await self._mirror.tips(*names)
        found = next((name for name in names if name in tips), None)
        if found is None:
            raise Rejected(f'{self._mirror.remote} has no branch "{names[-1]}".', reason="BranchMissing")
        await self._mirror.fetch(tips[found], branch=found)
        return tips[found], found != branch

    async def _build(self, requests: Sequence[CommitRequest], tip: str) -> _Batch:
        decisions = decide(requests, await self._present(requests, tip))
        written = [decision for decision in decisions if isinstance(decision, Written)]
        ids = await self._write(written, tip) if written else []
        outcomes = _outcomes(requests, decisions, [tip, *ids])
        return _Batch(base=tip, tip=ids[-1] if ids else tip, outcomes=outcomes)

    async def _present(self, requests: Sequence[CommitRequest], tip: str) -> dict[str, bytes | Conflicted | None]:
        """Return what each path holds at the tip, or why it must not be touched."""
        present: dict[str, bytes | Conflicted | None] = {}
        for path in {request.path for request in requests}:
            is_allowed = self._allowed.fullmatch(path) and _PATH.fullmatch(path)
            present[path] = None if is_allowed else Conflicted(f'"{path}" is not a file that may be written.')
        allowed = [path for path, content in present.items() if content is None]
        if not allowed:
            return present
        folders = {parent for path in allowed for parent in _folders(path)}
        entries = (await self._mirror.entries(tip, sorted({*allowed, *folders}))).files
        files = {path: entries[path] for path in allowed if path in entries}
        regular = [file.blob for file in files.values() if file.mode == REGULAR_FILE]
        contents = await self._mirror.read(regular, max_bytes=MAX_FILE_BYTES)
        for path in allowed:
            if any(folder in entries and entries[folder].mode != "040000" for folder in _folders(path)):
                present[path] = Conflicted(f'A folder of "{path}" is not a folder in the repository.')
            elif path in files:
                content = contents.get(files[path].blob)
                present[path] = content if isinstance(content, bytes) else _unusable(path)
        return present

    async def _write(self, written: Sequence[Written], tip: str) -> list[str]:
        """Build the commits; return their ids in order.

        Raises:
            Transient: git built something else (``MirrorDamaged``); nothing has left this machine.
        """
        command = self._mirror.keeper.command("fast-import", "--quiet", "--done", "--force", "--date-format=raw")
        source = stream(written, ref=_OUTGOING, tip=tip, committer=self._committer)
        finished = await self._mirror.keeper.write(replace(command, stdin=source))
        ids = finished.stdout.decode("ascii", "replace").split()
        if len(ids) != len(written) or not all(map(is_id, ids)):
            raise damaged("fast-import did not name the commits that it made")
        named = {commit.request.path for commit in written}
        others = [change.path for change in await self._mirror.changes(tip, ids[-1]) if change.path not in named]
        if others:
            raise damaged(f"the commits that were built touch {others[0]!r} as well")
        return ids

    async def _send(self, batch: _Batch, branch: str, *, is_new: bool) -> bool:
        """Push; False when the branch is not where it was.

        Raises:
            Transient: no answer, or the remote is away.
            Rejected: the remote's rules refuse it.
        """
        mirror, ref = self._mirror, f"refs/heads/{branch}"
        lease = f"--force-with-lease={ref}:{'' if is_new else batch.base}"
        options = ("--porcelain", "--no-follow-tags", "--no-recurse-submodules", lease, "--end-of-options")
        command = Command(
            ("push", *options, mirror.remote.url, f"{batch.tip}:{ref}"),
            seconds=mirror.keeper.limits.push_seconds,
            git_dir=mirror.keeper.repository.path,
            remote=mirror.remote,
        )
        finished = await mirror.keeper.runner.run(command)
        answer = parse_push(finished.stdout, ref)
        if answer is not None and answer.accepted and finished.status == 0:
            return True
        if answer is None or is_no_answer(answer.reason):
            raise remote_failure(mirror.remote, "pushing", finished.words)
        if not answer.by_remote or _RACES.search(f"{answer.reason}\n{finished.words}"):
            return False
        said = remote_words(finished.words)
        raise Rejected(
            f'{mirror.remote} refuses commits of the control plane on "{branch}": {answer.reason}. {said}'.rstrip(),
            reason="PushRefused",
            hint="Allow the control plane's account to push there, or use registration mode pull-request.",
        )


def _outcomes(
    requests: Sequence[CommitRequest], decisions: Sequence[Decision], steps: Sequence[str]
) -> dict[str, Outcome]:
    """Put ids to the decisions; ``steps`` are the tip and the commits on it."""
    outcomes: dict[str, Outcome] = {}
    written = 0
    for request, decision in zip(requests, decisions, strict=True):
        match decision:
            case Written():
                written += 1
                outcomes[request.id] = Committed(steps[written])
            case Standing(after):
                outcomes[request.id] = AlreadyThere(steps[after])
            case Conflicted():
                outcomes[request.id] = decision
    return outcomes


def _folders(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _unusable(path: str) -> Conflicted:
    return Conflicted(f'"{path}" is not a regular file of at most {MAX_FILE_BYTES} bytes.')


def _require_branch(branch: str) -> str:
    if not _BRANCH.fullmatch(branch):
        raise Rejected(f"{branch[:80]!r} is not a name for a branch.", reason="BranchMissing")
    return branch
