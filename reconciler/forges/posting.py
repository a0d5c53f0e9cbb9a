"""The statuses of commits, posted: each once, the newest of a commit, and never in anybody's way.

1. The application says what is wanted (:meth:`Statuses.want`); that costs a line in a dictionary.
2. One task takes one after another, what was wanted last first, and waits a moment before, in which a commit that
   converges at once is spared the status "pending".
3. What the forge is known to show is not posted. Where that is not known (another process may have been killed while it
   posted, an answer was lost), the forge is asked first.
4. Before a post the store says that it is under way, afterwards that it is done.
5. A commit that changes its mind all the time (an agent that fails again and again) is posted for more and more rarely:
   a forge keeps every status, and GitHub no more than 1,000.
6. What fails is tried again, later each time and no sooner than the forge asks for. What the forge refuses for good is
   given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, cast, get_args

from reconciler.errors import CloudLunacyError, Rejected
from reconciler.forges.forge import CommitStatus, Forge, State
from reconciler.forges.patience import Patience
from reconciler.observability.logs import get_logger
from reconciler.store.forges import Shown, ShownStore

log = get_logger(__name__)

MOST_WANTED: Final = 100
MOST_SHOWN: Final = 1000
AT_ONCE: Final = 5
"""Statuses of one commit that are posted as they come."""
LONGEST_GAP: Final = 600.0
"""Seconds between two posts for a commit that has had many."""


class Wanted:
    """What is to be shown and what is shown, by commit. PURE; bounded, the oldest go first."""

    def __init__(self) -> None:
        self._wanted: dict[str, CommitStatus] = {}
        self._shown: dict[str, CommitStatus] = {}
        self._posted: dict[str, tuple[int, float]] = {}
        """Commit → how many posts, and when the next one may be."""

    def __len__(self) -> int:
        return len(self._wanted)

    def want(self, revision: str, status: CommitStatus) -> None:
        """Take the place of whatever was wanted for the commit."""
        self._wanted.pop(revision, None)
        if self._shown.get(revision) == status:
            return
        self._wanted[revision] = status
        while len(self._wanted) > MOST_WANTED:
            del self._wanted[next(iter(self._wanted))]

    def next(self, now: float) -> tuple[str, CommitStatus] | None:
        """Return what was wanted last, of what may be posted now. ``now``: seconds of a clock that never jumps."""
        return next((one for one in reversed(self._wanted.items()) if self._due(one[0]) <= now), None)

    def due_in(self, now: float) -> float | None:
        """Return in how many seconds the next one may be posted, None where nothing is wanted."""
        return min((max(0.0, self._due(revision) - now) for revision in self._wanted), default=None)

    def posts(self, revision: str, now: float) -> None:
        """Note that something is posted for a commit."""
        number = 1 + self._posted.pop(revision, (0, 0.0))[0]
        gap = 0.0 if number < AT_ONCE else min(LONGEST_GAP, 2.0 ** min(number - AT_ONCE, 20))
        self._posted[revision] = (number, now + gap)
        while len(self._posted) > MOST_SHOWN:
            del self._posted[next(iter(self._posted))]

    def _due(self, revision: str) -> float:
        return self._posted.get(revision, (0, 0.0))[1]

    def is_known(self, revision: str) -> bool:
        """Say whether what the forge shows for the commit is known."""
        return revision in self._shown

    def shows(self, revision: str, status: CommitStatus) -> None:
        """Note what the forge shows."""
        self._shown.pop(revision, None)
        self._shown[revision] = status
        self.give_up(revision, status)
        while len(self._shown) > MOST_SHOWN:
            del self._shown[next(iter(self._shown))]

    def doubt(self, revision: str) -> None:
        """Note that the forge may show something else from now on."""
        self._shown.pop(revision, None)

    def give_up(self, revision: str, status: CommitStatus) -> None:
        """Want this status no more, unless it was replaced by another one."""
        if self._wanted.get(revision) == status:
            del self._wanted[revision]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. ``linger`` before a post; ``between`` posts, for GitHub takes 80 writes a minute (secondary limits)."""

    linger: float = 1.0
    between: float = 0.8


class Statuses:
    """Posts for one forge. The application runs :meth:`run` as a task; ``want`` may come before."""

    def __init__(
        self,
        forge: Forge,
        store: ShownStore,
        patience: Patience,
        *,
        timing: Timing = Timing(),
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._forge = forge
        self._store = store
        self._patience = patience
        self._timing = timing
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._wanted = Wanted()
        self._more = asyncio.Event()
        self.known: frozenset[str] = frozenset()
        """Commits that an earlier process posted for."""

    def want(self, revision: str, status: CommitStatus) -> None:
        """Have the forge show a status of a commit, soon."""
        self._wanted.want(revision, status)
        if len(self._wanted):
            self._more.set()

    async def load(self) -> None:
        """Take up what an earlier process knew."""
        rows = await self._store.shown(MOST_SHOWN)
        for one in reversed(rows):
            if one.is_sure and one.state in get_args(State):
                self._wanted.shows(one.revision, CommitStatus(cast("State", one.state), one.description, one.url))
        self.known = frozenset(one.revision for one in rows)

    async def run(self) -> None:
        """Post what is wanted, for ever."""
        while True:
            await self._more.wait()
            await self._sleep(self._timing.linger)
            self._more.clear()
            await self._drain()
            if (seconds := self._wanted.due_in(self._monotonic())) is not None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._more.wait(), seconds)
                self._more.set()

    async def _drain(self) -> None:
        while (found := self._wanted.next(self._monotonic())) is not None:
            try:
                await self.post(*found)
                await self._patience.succeeded()
            except Rejected as error:
                log.warning("the forge refuses a status", revision=found[0], error=str(error))
                self._wanted.give_up(*found)
            except CloudLunacyError as error:
                await self._sleep(await self._patience.failed(error))
            except Exception as error:  # a bug must not end the task
                log.exception("posting a status ended by a bug, trying again")
                await self._sleep(await self._patience.failed(error))

    async def post(self, revision: str, status: CommitStatus) -> None:
        """Have the forge show it, with as few requests as that takes.

        Raises:
            Transient, Broken, Rejected: as the forge, and the store.
        """
        if self._wanted.is_known(revision) or not await self._forge.has_status(revision, status):
            self._wanted.doubt(revision)
            await self._store.save_shown(self._row(revision, status, is_sure=False), keep=MOST_SHOWN)
            await self._forge.set_status(revision, status)
            self._wanted.posts(revision, self._monotonic())
            await self._sleep(self._timing.between)
        self._wanted.shows(revision, status)
        await self._store.save_shown(self._row(revision, status, is_sure=True), keep=MOST_SHOWN)

    def _row(self, revision: str, status: CommitStatus, *, is_sure: bool) -> Shown:
        return Shown(revision, status.state, status.description, status.url, self._clock(), is_sure)
