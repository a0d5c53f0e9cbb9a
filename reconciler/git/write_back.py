"""Commits of our own on a branch of the remote: one commit a request, one push for all (ADR 0003).

1. The tip: where the last push of a moment ago left the branch; else one ``ls-remote``, and a fetch when it is new.
2. What an earlier push of the same requests may have brought there (:mod:`reconciler.git.earlier`), if there was one.
3. The present content of the files that the requests name, and the edits on it, in order.
4. The commits, built on the tip by one ``fast-import``.
5. The record of them: what is pushed is known as ours before anybody can see it (docs/adr/0022).
6. One push that succeeds only if the branch still is at the tip. It can drop nobody's commit: ours descend from what
   it replaces.
7. Lost the race: from 1, with the edits run again on the new tip. No answer (a time-out, a cut line): from 1 as well;
   when the remote has our commits, they are not made twice.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from reconciler.desired.edits import AlreadyThere, CommitRequest, Committed, Conflicted, Outcome
from reconciler.desired.snapshot import REGULAR_FILE
from reconciler.errors import Rejected, Transient
from reconciler.git.earlier import earlier
from reconciler.git.failures import is_no_answer, remote_failure, remote_words
from reconciler.git.fast_import import Decision, Identity, Standing, Written, decide, is_plain_path, stream
from reconciler.git.keeper import damaged
from reconciler.git.mirror import Mirror
from reconciler.git.parsing import is_id, parse_push
from reconciler.git.runner import Command

CONTROL_PLANE: Final = Identity("CloudLunacy", "cloudlunacy@localhost")
MAX_FILE_BYTES: Final = 1024 * 1024
TRIES: Final = 8
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 2.0
TIP_SECONDS: Final = 5.0
"""So long after a push the branch is taken to be where it left it. If it is not, the next push is refused, and asks."""
_OUTGOING: Final = "refs/outgoing/last"
_CHEAP_PACK: Final = {
    "core.compression": "1",
    "core.fsync": "none",  # the mirror can be downloaded again, and damage is noticed
    "fastimport.unpackLimit": "20",  # objects; to take a pack apart costs more than all the rest
}
_BRANCH: Final = re.compile(r"(?!.*(?:\.\.|//|\.lock(?:/|$)|/\.|\.$|/$))[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")

_RACES: Final = re.compile(
    r"(?i)cannot lock ref|failed to update ref|fetch first|non-fast-forward|stale info|reference already exists"
    r"|incorrect old value|failed to lock"
)
_UNKNOWN_OUTCOMES: Final = frozenset({"GitTimeout", "RemoteUnavailable"})

Record = Callable[[Mapping[str, tuple[str, ...]]], Awaitable[None]]
"""Takes note durably of commits: id → the only paths that it changes, sorted."""
Jitter = Callable[[float], float]
"""Most seconds to wait → seconds to wait."""


async def no_record(_: Mapping[str, tuple[str, ...]]) -> None:
    """Take no note."""


def nowhere(_: str) -> bool:
    """Let people write no file."""
    return False


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
    made: Mapping[str, tuple[str, ...]]
    """Commit → the only paths that it changes, sorted."""


class WriteBack:
    """Writes to the remote of ``mirror``: only files whose path ``allowed`` matches as a whole.

    For requests ``by_person`` the path must be one that ``persons`` says yes to instead.
    """

    def __init__(
        self,
        mirror: Mirror,
        *,
        allowed: re.Pattern[str],
        persons: Callable[[str], bool] = nowhere,
        committer: Identity = CONTROL_PLANE,
        record: Record = no_record,
        tries: int = TRIES,
        jitter: Jitter = full_jitter,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mirror = mirror
        self._allowed = allowed
        self._persons = persons
        self._committer = committer
        self._record = record
        self._tries = tries
        self._jitter = jitter
        self._monotonic = monotonic
        self._last: tuple[str, str, float] | None = None  # branch, tip and time of the last push that was taken
        self._pushing = asyncio.Lock()

    async def push(
        self,
        commits: Sequence[CommitRequest],
        *,
        branch: str,
        base: str | None = None,
        repeated: Collection[str] = (),
    ) -> Pushed:
        """Bring one commit a request to ``branch`` of the remote, in their order, with one push.

        Args:
            commits: requests with ids of their own.
            branch: name without ``refs/heads/``.
            base: branch from whose tip ``branch`` is made when the remote lacks it.
            repeated: ids of requests that an earlier call may have pushed. When the branch has such a commit in its
                history the request is done, also where somebody has taken it back since.

        Raises:
            Transient: the remote is away (nothing is known to be lost: ask again with the same requests, ``repeated``),
                or the race was lost too often (``PushRace``).
            Rejected: the remote's rules refuse the push (``PushRefused``), or neither branch is there
                (``BranchMissing``).
        """
        _require_branch(branch)
        async with self._pushing:
            guess = None if repeated else self._last_tip(branch)
            unanswered: _Batch | None = None
            for attempt in range(self._tries):
                await self._pause(attempt - (guess is not None))
                is_guess = attempt == 0 and guess is not None
                tip, is_new = (guess or "", False) if is_guess else await self._tip(branch, base)
                if unanswered and not is_new and await self._mirror.descends(tip, unanswered.tip):
                    return Pushed(tip, unanswered.outcomes)
                batch = await self._build(commits, tip, repeated)
                if batch.tip == batch.base:
                    if is_guess:  # without a push nothing shows that the branch still is there
                        continue
                    return Pushed(tip, batch.outcomes)
                await self._record(batch.made)
                try:
                    if await self._send(batch, branch, is_new=is_new):
                        return self._noted(batch, branch)
                except Transient as failure:
                    if unanswered or failure.reason not in _UNKNOWN_OUTCOMES:
                        raise
                    unanswered = batch
            raise Transient(
                f'{self._mirror.remote}: others pushed to "{branch}" {self._tries} times while we tried to.',
                reason="PushRace",
            )

    async def _pause(self, losses: int) -> None:
        """Wait a random time, longer after each race that was lost."""
        if losses > 0:
            await asyncio.sleep(self._jitter(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (losses - 1))))

    def _noted(self, batch: _Batch, branch: str) -> Pushed:
        self._mirror.keeper.remember(batch.tip)
        self._last = (branch, batch.tip, self._monotonic())
        return Pushed(batch.tip, batch.outcomes)

    def _last_tip(self, branch: str) -> str | None:
        """Take the tip that the last push left, if that was this branch and a moment ago."""
        last, self._last = self._last, None
        if last is None or last[0] != branch or self._monotonic() - last[2] > TIP_SECONDS:
            return None
        return last[1]

    async def _tip(self, branch: str, base: str | None) -> tuple[str, bool]:
        """Return the commit to build on, here and complete, and whether the branch has to be made."""
        names = [branch] if base is None or base == branch else [branch, _require_branch(base)]
        tips = await self._mirror.tips(*names)
        found = next((name for name in names if name in tips), None)
        if found is None:
            raise Rejected(f'{self._mirror.remote} has no branch "{names[-1]}".', reason="BranchMissing")
        await self._mirror.fetch(tips[found], branch=found)
        return tips[found], found != branch

    async def _build(self, requests: Sequence[CommitRequest], tip: str, repeated: Collection[str] = ()) -> _Batch:
        found = await earlier(self._mirror, tip, [request for request in requests if request.id in repeated])
        fresh = [request for request in requests if request.id not in found]
        refused = {request.id: no for request in fresh if (no := self._refused(request)) is not None}
        wanted = {path for request in fresh if request.id not in refused for path in request.edits}
        decisions = decide(fresh, await self._present(wanted, tip), refused)
        written = [decision for decision in decisions if isinstance(decision, Written)]
        ids = await self._write(written, tip) if written else []
        done = {request_id: Committed(revision) for request_id, revision in found.items()}
        outcomes = done | _outcomes(fresh, decisions, [tip, *ids])
        made = {revision: tuple(sorted(one.files)) for revision, one in zip(ids, written, strict=True)}
        return _Batch(base=tip, tip=ids[-1] if ids else tip, outcomes=outcomes, made=made)

    def _refused(self, request: CommitRequest) -> Conflicted | None:
        """Say why a request may not be made, whatever the files hold."""
        may = self._persons if request.by_person else self._allowed.fullmatch
        wrong = next((path for path in request.edits if not (may(path) and is_plain_path(path))), None)
        return None if wrong is None else Conflicted(f'"{wrong}" is not a file that may be written.')

    async def _present(self, paths: Collection[str], tip: str) -> dict[str, bytes | Conflicted | None]:
        """Return what each path holds at the tip, or why it must not be touched."""
        present: dict[str, bytes | Conflicted | None] = dict.fromkeys(paths)
        if not paths:
            return present
        folders = {parent for path in paths for parent in _folders(path)}
        entries = (await self._mirror.entries(tip, sorted({*paths, *folders}))).files
        files = {path: entries[path] for path in paths if path in entries}
        regular = [file.blob for file in files.values() if file.mode == REGULAR_FILE]
        contents = await self._mirror.read(regular, max_bytes=MAX_FILE_BYTES)
        for path in paths:
            if any(folder in entries and entries[folder].mode != "040000" for folder in _folders(path)):
                present[path] = Conflicted(f'A folder of "{path}" is not a folder in the repository.')
            elif path in files:
                content = contents.get(files[path].blob)
                present[path] = content if isinstance(content, bytes) else _unusable(path)
        return present

    async def _write(self, written: Sequence[Written], tip: str) -> list[str]:
        """Build the commits; return their ids in order.

        Raises:
            Transient: git did not build them (``MirrorDamaged``); nothing has left this machine.
        """
        command = self._mirror.keeper.command("fast-import", "--quiet", "--done", "--force", "--date-format=raw")
        source = stream(written, ref=_OUTGOING, tip=tip, committer=self._committer)
        finished = await self._mirror.keeper.write(replace(command, stdin=source, config=_CHEAP_PACK))
        ids = finished.stdout.decode("ascii", "replace").split()
        if len(ids) != len(written) or not all(map(is_id, ids)):
            raise damaged("fast-import did not name the commits that it made")
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
