"""From the outbox to the remote branch: many accepted entries, few pushes.

One task (``GroupCommitter.run``) does all of it, over and over:

1. wait until something is pending, then as long as more keep coming, so that those who come together go together;
2. wait until the pace allows a push (a git host wants no more than 6 a minute from one client);
3. push up to 100 entries, one commit each. While there are pushes to spare, half of many: the answers to one half, and
   what follows them, are dealt with while the other half is pushed;
4. settle what was decided, durably, and wake who waits for it;
5. tell the listener, once a second at most: a pass of the loop for each group would only be overtaken by the next;
6. on failure keep everything and try again, later each time.

An entry leaves the outbox when the remote has it and in no other way. A crash between 3 and 4, or a lost answer, costs
nothing: an entry that may have been pushed before is looked for in the branch's history, so that it is not made again
after somebody has taken it back.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from reconciler.agents.rates import Bucket
from reconciler.desired.edits import CommitRequest, Committed, Conflicted, Outcome
from reconciler.errors import CloudLunacyError, Transient
from reconciler.store.protocols import Outbox, OutboxEntry

log = structlog.get_logger(__name__)

COMMITTED: Final = "committed"
PROPOSED: Final = "proposed"
ALREADY_THERE: Final = "already-there"
CONFLICTED: Final = "conflicted: "
MAX_GROUP: Final = 100
SPARE: Final = 0.5
"""With more than this share of the pace's burst left, pushes are spent to save time."""
GOOD_GROUP: Final = 25
"""Commits that need no company. Each is 4 objects, and of 100 on a git server keeps them as one pack; fewer it takes
apart (``receive.unpackLimit``), and flushing each object of such a push takes longer than all of a larger one."""
MAX_BACKLOG: Final = 100_000


class Pushed(Protocol):
    @property
    def outcomes(self) -> Mapping[str, Outcome]: ...


class Pusher(Protocol):
    """:class:`reconciler.git.write_back.WriteBack` is one."""

    async def push(
        self, commits: Sequence[CommitRequest], *, branch: str, base: str | None = None, repeated: Collection[str] = ()
    ) -> Pushed: ...


@dataclass(frozen=True, slots=True)
class Job:
    """An entry as a commit, and the branch that it goes to. ``proposal``: the branch waits to be merged."""

    request: CommitRequest
    branch: str
    base: str | None = None
    proposal: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of an entry. ``outcome`` as in the outbox."""

    outcome: str
    revision: str | None


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. ``linger``: quiet time that ends a group; ``linger_most``: the longest that a group is kept open.

    ``tell``: between two times that the listener is told.
    """

    linger: float = 0.008
    linger_most: float = 0.1
    tell: float = 1.0
    first_pause: float = 0.5
    longest_pause: float = 60.0


async def nothing(_: OutboxEntry, __: Settled) -> None:
    """Listen to nothing."""


class GroupCommitter:
    """Owns what is pending. The application runs ``run()`` as a task; ``add`` and ``wait`` may come before."""

    def __init__(
        self,
        outbox: Outbox,
        pusher: Pusher,
        compose: Callable[[OutboxEntry], Job],
        *,
        pace: Bucket | None = None,
        timing: Timing = Timing(),
        on_settled: Callable[[OutboxEntry, Settled], Awaitable[None]] = nothing,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._outbox = outbox
        self._pusher = pusher
        self._compose = compose
        self._pace = pace or Bucket(6, 0.1)
        self._timing = timing
        self._on_settled = on_settled
        self._clock = clock
        self._monotonic = monotonic
        self._jitter = jitter
        self._pending: dict[str, OutboxEntry] = {}
        self._repeated: set[str] = set()  # ids of what may have been pushed without anybody knowing
        self._waiting: dict[str, asyncio.Future[Settled]] = {}
        self._untold: list[tuple[OutboxEntry, Settled]] = []
        self._tell_at = 0.0  # monotonic; not before
        self._more = asyncio.Event()
        self.resumed = asyncio.Event()
        """Set once what an earlier process left in the outbox is known here. Nothing is said about entries before."""
        self._group_limit = MAX_GROUP
        self._is_flowing = False  # while one group was pushed, the next one has come
        self.on_pushed: Callable[[int], None] = lambda _: None
        """Called with the number of entries of each push that the remote took."""
        self.pushes = 0
        self.failures = 0
        """In a row."""

    @property
    def backlog(self) -> int:
        """How many entries are accepted and not yet on the remote."""
        return len(self._pending)

    def is_pending(self, entry_id: str) -> bool:
        return entry_id in self._pending

    def add(self, entry: OutboxEntry) -> None:
        """Take care of an entry that is in the outbox, on disk: it will be on the remote."""
        self._pending.setdefault(entry.id, entry)
        self._more.set()

    async def wait(self, entry_id: str, seconds: float) -> Settled | None:
        """Wait until an entry is settled; None when it is not within ``seconds``, or unknown."""
        if entry_id in self._pending:
            waiting = self._waiting.setdefault(entry_id, asyncio.get_running_loop().create_future())
            await asyncio.wait([waiting], timeout=seconds)
            return waiting.result() if waiting.done() else None
        found = await self._outbox.outcome(entry_id)
        return None if found is None else Settled(*found)

    async def run(self) -> None:
        """Drain the outbox until cancelled."""
        await self._resume()
        try:
            while True:
                await self._wait_for_more()
                await self._gather()
                await self._sleep_for_pace()
                try:
                    await self._push_group()
                except Exception as error:  # noqa: BLE001  nothing may end the task that keeps a promise
                    await self._after_failure(error)
                else:
                    self.failures = 0
                if not self._pending:
                    self._more.clear()
                if self._monotonic() >= self._tell_at:
                    await self._tell()
        finally:
            await self._tell()

    async def _resume(self) -> None:
        while True:
            try:
                entries = await self._outbox.pending(MAX_BACKLOG)
                break
            except CloudLunacyError as error:
                await self._after_failure(error)
        self.failures = 0
        for entry in entries:
            self._repeated.add(entry.id)
            self.add(entry)
        self.resumed.set()
        if entries:
            log.info("enrolments that were queued go on", entries=len(entries))

    async def _wait_for_more(self) -> None:
        """Wait until something is pending; meanwhile tell the listener what it has not been told."""
        while self._untold and not self._more.is_set():
            left = self._tell_at - self._monotonic()
            if left <= 0:
                await self._tell()
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(self._more.wait(), left)
        await self._more.wait()

    async def _gather(self) -> None:
        """Wait while entries keep coming, up to ``linger_most``. After a push, a good group goes at once."""
        begun = self._monotonic()
        enough = GOOD_GROUP if self._is_flowing and self._has_spare_pushes() else self._group_limit
        # Whoever was just answered, and has more to ask, needs this long to be back.
        linger = self._timing.linger * (3 if self._is_flowing else 1)
        while len(self._pending) < enough and self._monotonic() < begun + self._timing.linger_most:
            seen, slept = len(self._pending), self._monotonic()
            await asyncio.sleep(linger)
            # An event loop that wakes us late is busy with those who come.
            if len(self._pending) == seen and self._monotonic() - slept < 2 * linger:
                break

    def _has_spare_pushes(self) -> bool:
        return self._pace.share(self._monotonic()) > SPARE

    async def _sleep_for_pace(self) -> None:
        while seconds := self._pace.take(self._monotonic()):
            await self._tell()
            await asyncio.sleep(seconds)

    async def _push_group(self) -> None:
        jobs = await self._next_jobs()
        if not jobs:
            return
        self.pushes += 1
        branch, base = next((job.branch, job.base) for job in jobs.values())
        requests, repeated = [job.request for job in jobs.values()], self._repeated & jobs.keys()
        self._repeated |= jobs.keys()  # until it is known what became of them
        pushed = await self._pusher.push(requests, branch=branch, base=base, repeated=repeated)
        self.on_pushed(len(jobs))
        self._group_limit = MAX_GROUP
        await self._finish({id_: _settled(job, pushed.outcomes[id_]) for id_, job in jobs.items()})
        self._is_flowing = bool(self._pending)

    async def _next_jobs(self) -> dict[str, Job]:
        """Return the oldest entries that go to one branch; what cannot become a commit at all is settled."""
        jobs: dict[str, Job] = {}
        half = len(self._pending) // 2
        most = half if half >= GOOD_GROUP and self._has_spare_pushes() else len(self._pending)
        for entry in list(self._pending.values()):
            try:
                job = self._compose(entry)
            except (ValueError, KeyError, TypeError) as error:
                log.error("a queued entry cannot be read", entry=entry.id, error=type(error).__name__)  # noqa: TRY400
                await self._finish({entry.id: Settled(f"{CONFLICTED}the queued entry cannot be read", None)})
                continue
            if jobs and job.branch != next(iter(jobs.values())).branch:
                continue
            jobs[entry.id] = job
            if len(jobs) >= min(most, self._group_limit):
                break
        return jobs

    async def _finish(self, settled: Mapping[str, Settled]) -> None:
        """Take a whole group out of the outbox in one step, and wake who waits for its entries."""
        await self._outbox.settle({id_: (one.outcome, one.revision) for id_, one in settled.items()}, self._clock())
        for entry_id, one in settled.items():
            self._untold.append((self._pending.pop(entry_id), one))
            self._repeated.discard(entry_id)
            if waiting := self._waiting.pop(entry_id, None):
                waiting.set_result(one)

    async def _tell(self) -> None:
        told, self._untold = self._untold, []
        if told:
            self._tell_at = self._monotonic() + self._timing.tell
        answers = await asyncio.gather(*(self._on_settled(*one) for one in told), return_exceptions=True)
        for (entry, _), answer in zip(told, answers, strict=True):
            if isinstance(answer, Exception):  # a listener's failure is not the entry's
                log.warning("what became of an entry could not be told", entry=entry.id, error=type(answer).__name__)

    async def _after_failure(self, error: Exception) -> None:
        """Keep everything; wait with full jitter, no less than the remote asked for."""
        self.failures += 1
        self._is_flowing = False
        await self._tell()
        reason = error.reason if isinstance(error, Transient) else type(error).__name__
        log.warning(
            "enrolments cannot be pushed, trying again",
            reason=reason,
            failures=self.failures,
            pending=len(self._pending),
        )
        if not isinstance(error, Transient):
            self._isolate()
        await self._note(f"{reason}: {error}"[:500])
        most = min(self._timing.longest_pause, self._timing.first_pause * 2.0 ** min(self.failures, 20))
        asked = getattr(error, "retry_after", None) or 0.0
        await asyncio.sleep(max(asked, self._jitter(0.0, most)))

    def _isolate(self) -> None:
        """One entry may be what the remote refuses: go on one by one, and put the first last."""
        self._group_limit = 1
        if self._pending:
            first = next(iter(self._pending))
            self._pending[first] = self._pending.pop(first)

    async def _note(self, error: str) -> None:
        try:
            await self._outbox.failed(list(self._pending)[:MAX_GROUP], error)
        except Exception as failure:  # noqa: BLE001  the count is for people; the entries are safe without it
            log.warning("what was pushed cannot be noted yet", error=type(failure).__name__)


def _settled(job: Job, outcome: Outcome) -> Settled:
    match outcome:
        case Conflicted(message):
            return Settled(f"{CONFLICTED}{message}", None)
        case _ if job.proposal:
            return Settled(PROPOSED, outcome.revision)
        case Committed(revision):
            return Settled(COMMITTED, revision)
        case _:
            return Settled(ALREADY_THERE, outcome.revision)
