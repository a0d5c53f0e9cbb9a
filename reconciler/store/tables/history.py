"""Time series in rows: of each subject and tier one row for a while. All functions run in the database's thread."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from reconciler.store.downsampling import TIERS, Series, decode, encode, floor, merge

log = logging.getLogger(__name__)


class Gathered(NamedTuple):
    """What was gathered of a subject for the row that begins at ``start``."""

    subject: str
    start: int
    series: Series


class Question(NamedTuple):
    subject: str
    since: int
    until: int
    tier: int
    names: frozenset[str] | None


def add(connection: sqlite3.Connection, gathered: Iterable[Gathered]) -> None:
    """Write rows of the finest tier; what is there already (from before a restart) stays part of them."""
    for one in gathered:
        _write(connection, one.subject, 0, one.start, one.series)


def read(connection: sqlite3.Connection, question: Question) -> Series:
    """Return the points of a tier; where it has not been written yet, those of the finer ones, folded."""
    found: Series = {}
    since = question.since
    for number in range(question.tier, -1, -1):
        merge(found, _rows(connection, question._replace(since=since, tier=number), TIERS[question.tier].step))
        (last,) = connection.execute(
            "SELECT max(start) FROM chunks WHERE subject = ? AND tier = ?", (question.subject, number)
        ).fetchone()
        if last is not None:
            since = max(since, last + TIERS[number].chunk)
    return {
        name: {start: one for start, one in points.items() if question.since <= start < question.until}
        for name, points in found.items()
    }


class Period(NamedTuple):
    """Subjects of which the rows of ``tier`` from ``start`` on make one row of the next tier."""

    tier: int
    start: int
    subjects: tuple[str, ...]


def waiting(connection: sqlite3.Connection, now: int, *, limit: int, grace: int) -> Period | None:
    """Return the first time that is over since ``grace`` seconds and not folded, with ``limit`` subjects at most."""
    for tier in range(len(TIERS) - 1):
        chunk = TIERS[tier + 1].chunk
        while (period := _next_period(connection, tier, chunk)) is not None and period + chunk + grace <= now:
            too_old = period < now - TIERS[tier + 1].kept - chunk  # it would be forgotten at once
            subjects = () if too_old else _unfolded(connection, tier, period, limit)
            if subjects:
                return Period(tier, period, subjects)
            connection.execute("INSERT OR REPLACE INTO folded (tier, until) VALUES (?, ?)", (tier, period + chunk))
    return None


def fold(connection: sqlite3.Connection, period: Period) -> None:
    """Write the rows of the next tier."""
    coarse = TIERS[period.tier + 1]
    for subject in period.subjects:
        question = Question(subject, period.start, period.start + coarse.chunk, period.tier, None)
        _write(connection, subject, period.tier + 1, period.start, _rows(connection, question, coarse.step))


def prune(connection: sqlite3.Connection, now: int, *, limit: int) -> int:
    """Forget what is too old, never what does not stand in the next tier yet; return how many rows."""
    done = 0
    for number, tier in enumerate(TIERS):
        before = now - tier.kept - tier.chunk
        if number < len(TIERS) - 1:
            before = min(before, _until(connection, number))
        done += connection.execute(
            "DELETE FROM chunks WHERE rowid IN (SELECT rowid FROM chunks WHERE tier = ? AND start < ? LIMIT ?)",
            (number, before, limit),
        ).rowcount
    return done


def size(connection: sqlite3.Connection) -> int:
    """Return how many subjects there are."""
    (count,) = connection.execute("SELECT count(DISTINCT subject) FROM chunks").fetchone()
    return int(count)


def _until(connection: sqlite3.Connection, tier: int) -> int:
    row = connection.execute("SELECT until FROM folded WHERE tier = ?", (tier,)).fetchone()
    return 0 if row is None else int(row[0])


def _next_period(connection: sqlite3.Connection, tier: int, chunk: int) -> int | None:
    (first,) = connection.execute(
        "SELECT min(start) FROM chunks WHERE tier = ? AND start >= ?", (tier, _until(connection, tier))
    ).fetchone()
    return None if first is None else floor(first, chunk)


def _unfolded(connection: sqlite3.Connection, tier: int, period: int, limit: int) -> tuple[str, ...]:
    rows = connection.execute(
        "SELECT DISTINCT subject FROM chunks AS fine WHERE tier = ? AND start >= ? AND start < ? AND NOT EXISTS"
        " (SELECT 1 FROM chunks WHERE subject = fine.subject AND tier = ? AND start = ?) LIMIT ?",
        (tier, period, period + TIERS[tier + 1].chunk, tier + 1, period, limit),
    )
    return tuple(subject for (subject,) in rows)


def _rows(connection: sqlite3.Connection, question: Question, step: int) -> Series:
    tier = TIERS[question.tier]
    rows = connection.execute(
        "SELECT start, data FROM chunks WHERE subject = ? AND tier = ? AND start > ? AND start < ? ORDER BY start",
        (question.subject, question.tier, question.since - tier.chunk, question.until),
    )
    found: Series = {}
    for start, data in rows:
        series = _decoded(data, start, tier.step, question)
        merge(found, series, step)
    return found


def _decoded(data: bytes, start: int, step: int, question: Question) -> Series:
    try:
        return decode(data, start, step, question.names)
    except ValueError as error:
        log.warning("%s, of %s at %d; it is left out", error, question.subject, start)
        return {}


def _write(connection: sqlite3.Connection, subject: str, tier: int, start: int, series: Series) -> None:
    step = TIERS[tier].step
    row = connection.execute(
        "SELECT data FROM chunks WHERE subject = ? AND tier = ? AND start = ?", (subject, tier, start)
    ).fetchone()
    whole = series
    if row is not None:
        whole = _decoded(row[0], start, step, Question(subject, start, start, tier, None))
        merge(whole, series)
    connection.execute(
        "INSERT OR REPLACE INTO chunks (subject, tier, start, data) VALUES (?, ?, ?, ?)",
        (subject, tier, start, encode(whole, start, step)),
    )
