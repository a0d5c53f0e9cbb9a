"""The history of what agents and deployments measure: gathered in memory, written now and then, kept downsampled.

1. :meth:`History.sample` appends a few numbers to a list; heartbeats cost no more than that.
2. When the time of a row (five minutes) is over, its samples are put into buckets, encoded and written in the thread of
   the database; subjects take turns, so that never many come together.
3. :meth:`History.tidy` folds rows into those of coarser tiers and forgets what is too old.

``history.db`` is disposable: without it the past is lost and nothing else; a damaged one is replaced by an empty one.
What was gathered and not written (five to ten minutes) is lost when the process is killed.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import sqlite3
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from reconciler.errors import Broken, CloudLunacyError, Transient
from reconciler.store.downsampling import TIERS, Points, Series, asked, floor, folded, gathered, merge
from reconciler.store.engine import Database, Mode
from reconciler.store.schema import HISTORY_SCHEMA
from reconciler.store.tables import history as rows
from reconciler.store.tables.history import Gathered, Question

log = logging.getLogger(__name__)

SECONDS: Final = 1.0
"""Between looks for what is to be written."""
SPREAD: Final = 240
"""Seconds over which the rows of all subjects are written."""
RETRY: Final = 30.0
AT_ONCE: Final = 10
"""Rows that one job encodes and writes, so that the thread never holds the interpreter for long."""
FOLDED_AT_ONCE: Final = 100
"""Rows that one :meth:`History.tidy` folds."""
GRACE: Final = 900
"""Seconds after which the rows of a time are sure to be written."""
MAX_SUBJECTS: Final = 20_000
MAX_SAMPLES: Final = 600
"""Of one subject in the time of one row; what comes beyond it says nothing new."""

_CHUNK: Final = TIERS[0].chunk


class Answer(NamedTuple):
    step: int
    series: Series


class _Open(NamedTuple):
    """What is gathered for a row; each sample has its values in the order of ``names``."""

    names: Sequence[str]
    samples: list[tuple[float, tuple[float | None, ...]]]


class History:
    """A subject is ``<agent>``, or ``<agent>/<team>/<deployment>``. Times are POSIX seconds."""

    def __init__(
        self, directory: Path, *, clock: Callable[[], float] = time.time, max_subjects: int = MAX_SUBJECTS
    ) -> None:
        self._database = Database(directory, HISTORY_SCHEMA, clock=clock)
        self._clock = clock
        self._max = max_subjects
        self._open: dict[tuple[str, int], _Open] = {}
        self._due: list[tuple[float, str, int]] = []
        self._subjects: dict[str, float] = {}
        """Subject → when it is forgotten unless it is heard again; bounds what may be gathered."""
        self._available = False
        self.left_out = 0
        """Samples of subjects beyond the bound."""

    @classmethod
    async def open(cls, directory: Path, *, clock: Callable[[], float] = time.time) -> History:
        """Open the file. One that cannot be had costs the history until the next start, and nothing else."""
        history = cls(directory, clock=clock)
        await history.start()
        return history

    async def start(self) -> None:
        """The same for one that was made already."""
        try:
            await self._database.open()
            self._available = True
        except CloudLunacyError as error:
            log.warning("the history of metrics is not kept: %s", error)

    @property
    def notices(self) -> Sequence[str]:
        """Sentences about files that had to be replaced, for the timeline."""
        return self._database.notices

    async def close(self) -> None:
        """Write what was gathered and close the file."""
        if not self._available:
            return
        self._available = False
        try:
            await self._write(list(self._open))
        except CloudLunacyError as error:
            log.warning("the last of the history cannot be written: %s", error)
        await self._database.close()

    # --- gathering ----------------------------------------------------------------------------------------------

    def sample(self, subject: str, now: float, names: Sequence[str], values: Mapping[str, float]) -> None:
        """Gather the metrics ``names`` of one message; the others in ``values`` are not kept."""
        start = int(now // _CHUNK) * _CHUNK
        row = self._open.get((subject, start))
        if row is None:
            if not self._available or not self._admits(subject, now):
                return
            row = self._open[subject, start] = _Open(names, [])
            heapq.heappush(self._due, (start + _CHUNK + zlib.crc32(subject.encode()) % SPREAD, subject, start))
        if len(row.samples) < MAX_SAMPLES:
            row.samples.append((now, tuple(map(values.get, names))))

    def _admits(self, subject: str, now: float) -> bool:
        if subject not in self._subjects and len(self._subjects) >= self._max:
            self._subjects = {one: until for one, until in self._subjects.items() if until > now}
            if len(self._subjects) >= self._max:
                self.left_out += 1
                return False
        self._subjects[subject] = now + 3600
        return True

    async def run(self) -> None:
        """Write what is due, for ever. A disk that is full today may not be tomorrow."""
        while True:
            await asyncio.sleep(SECONDS)
            try:
                await self.flush()
            except (Transient, Broken) as error:
                log.warning("the history of metrics cannot be written: %s", error)
            except Exception:  # a bug must not end the task
                log.exception("writing the history of metrics ended by a bug, trying again")

    async def flush(self) -> None:
        """Write the rows whose time is over and whose turn it is.

        Raises:
            Transient, Broken: from the store; the rows are tried again later, and given up after an hour.
        """
        now, due = self._clock(), []
        while self._due and self._due[0][0] <= now:
            _, subject, start = heapq.heappop(self._due)
            if (subject, start) in self._open:
                due.append((subject, start))
        try:
            await self._write(due)
        except CloudLunacyError:
            for subject, start in due:
                if now < start + TIERS[0].kept:
                    heapq.heappush(self._due, (now + RETRY, subject, start))
                else:
                    self._open.pop((subject, start), None)
            raise

    async def _write(self, keys: Sequence[tuple[str, int]]) -> None:
        for first in range(0, len(keys), AT_ONCE):
            batch = [(key, self._open[key]) for key in keys[first : first + AT_ONCE] if key in self._open]
            # nothing is added to a row whose time is over, unless the clock went back; then a new one is begun
            for key, _ in batch:
                del self._open[key]
            try:
                await self._database.run(partial(_add, batch=batch), Mode.WRITE)
            except BaseException:
                self._open.update(batch)
                raise

    # --- keeping ------------------------------------------------------------------------------------------------

    async def tidy(self) -> None:
        """Fold and forget, a bounded part of it. Raises Transient or Broken."""
        if not self._available:
            return
        now = int(self._clock())
        finding = partial(rows.waiting, now=now, limit=FOLDED_AT_ONCE, grace=GRACE)
        period = await self._database.run(finding, Mode.WRITE)
        if period is not None:
            for first in range(0, len(period.subjects), AT_ONCE):
                part = period._replace(subjects=period.subjects[first : first + AT_ONCE])
                await self._database.run(partial(rows.fold, period=part), Mode.WRITE)
        await self._database.run(partial(rows.prune, now=now, limit=1000), Mode.WRITE)

    # --- asking -------------------------------------------------------------------------------------------------

    async def series(
        self,
        subject: str,
        since: float,
        until: float,
        *,
        step: int | None = None,
        names: frozenset[str] | None = None,
    ) -> Answer:
        """Return what is known of the time from ``since`` until before ``until``, also what is not written yet.

        Raises:
            Transient, Broken: from the store, and Transient where there is no history.
        """
        if not self._available:
            raise Transient("the history of metrics is not kept just now.", reason="NoHistory", retry_after=60.0)
        tier, wide = asked(since, until, step, self._clock())
        first, last = floor(since, wide), -floor(-until, wide)
        gathered_here = [
            (key, row) for key, row in self._open.items() if key[0] == subject and first - _CHUNK < key[1] < last
        ]
        found = await self._database.run(partial(rows.read, question=Question(subject, first, last, tier, names)))
        for _, row in gathered_here:
            merge(found, _buckets(row, names))
        return Answer(wide, {name: _within(folded(points, wide), first, last) for name, points in found.items()})


def _within(points: Points, first: int, last: int) -> Points:
    return {start: points[start] for start in sorted(points) if first <= start < last}


def _buckets(row: _Open, names: frozenset[str] | None = None) -> Series:
    step = TIERS[0].step
    found = {}
    for column, name in enumerate(row.names):
        if names is None or name in names:
            samples = ((when, _short(value)) for when, values in row.samples if (value := values[column]) is not None)
            if points := gathered(samples, step):
                found[name] = points
    return found


def _short(value: float) -> float:
    """Six digits are more than anybody draws, and take half of the room."""
    return float(f"{value:.6g}")


def _add(connection: sqlite3.Connection, batch: Sequence[tuple[tuple[str, int], _Open]]) -> None:
    rows.add(connection, [Gathered(subject, start, _buckets(row)) for (subject, start), row in batch])
