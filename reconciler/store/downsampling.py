"""Samples become buckets, buckets become coarser ones, and nothing is lost but when within a bucket it was. PURE.

A bucket keeps number, sum, smallest and largest, so that those of a coarse one are those of all samples in it, whatever
finer ones it was folded from. Times are POSIX seconds; the start of a bucket is a multiple of its step.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple


class Bucket(NamedTuple):
    samples: int
    total: float
    low: float
    high: float

    @property
    def mean(self) -> float:
        return self.total / self.samples

    def with_(self, other: Bucket) -> Bucket:
        """Return the bucket of both."""
        return Bucket(
            self.samples + other.samples, self.total + other.total, min(self.low, other.low), max(self.high, other.high)
        )


Points = dict[int, Bucket]
"""Start → bucket."""
Series = dict[str, Points]
"""Metric → its points."""


class Tier(NamedTuple):
    """A resolution, in seconds: its ``step``, how long it is ``kept``, and the time that one row holds."""

    step: int
    kept: int
    chunk: int


TIERS: Final = (Tier(10, 3600, 300), Tier(60, 86_400, 3600), Tier(900, 30 * 86_400, 21_600))
"""Finest first; each step and chunk divides that of the next."""
MAX_POINTS: Final = 1500
"""Of one series in one answer."""
LARGEST: Final = 1e18
"""A number beyond it is nothing that a machine measures; sums stay finite."""


def floor(when: float, step: int) -> int:
    """Return the start of the bucket that holds this time."""
    return int(when // step) * step


def gathered(samples: Iterable[tuple[float, float]], step: int) -> Points:
    """Put samples (time, value) into buckets."""
    points: Points = {}
    for when, value in samples:
        if -LARGEST <= value <= LARGEST:  # false for what is no number too
            _add(points, floor(when, step), Bucket(1, value, value, value))
    return points


def folded(points: Mapping[int, Bucket], step: int) -> Points:
    """Return the points at a coarser step, a multiple of theirs."""
    found: Points = {}
    for start, bucket in points.items():
        _add(found, floor(start, step), bucket)
    return found


def merge(into: Series, series: Mapping[str, Mapping[int, Bucket]], step: int = 1) -> None:
    """Add everything of ``series`` at a ``step``; buckets of the same start become one."""
    for name, points in series.items():
        mine = into.setdefault(name, {})
        for start, bucket in points.items():
            _add(mine, start // step * step, bucket)


def _add(points: Points, start: int, bucket: Bucket) -> None:
    known = points.get(start)
    points[start] = bucket if known is None else known.with_(bucket)


class Asked(NamedTuple):
    """What an answer is made of: the tier, and the step of its points."""

    tier: int
    step: int


def asked(since: float, until: float, step: int | None, now: float) -> Asked:
    """Choose the finest tier that still has ``since``, no finer than ``step``, with at most :data:`MAX_POINTS`."""
    last = len(TIERS) - 1
    by_age = next((number for number, tier in enumerate(TIERS) if since >= now - tier.kept), last)
    least = max(step or 0, (until - since) / MAX_POINTS)
    by_step = max((number for number, tier in enumerate(TIERS) if tier.step <= least), default=0)
    tier = max(by_age, by_step)
    unit = TIERS[tier].step
    return Asked(tier, max(1, -int(-least // unit)) * unit)


def encode(series: Mapping[str, Mapping[int, Bucket]], start: int, step: int) -> bytes:
    """Write the part of a series that one row holds; a bucket of one sample is its value alone."""
    document = {
        name: [
            [(at - start) // step, one.total] if one.samples == 1 else [(at - start) // step, *one]
            for at, one in sorted(points.items())
        ]
        for name, points in series.items()
    }
    return zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 3)


def decode(data: bytes, start: int, step: int, names: frozenset[str] | None = None) -> Series:
    """Read what :func:`encode` wrote, all of it or some metrics. Raises ValueError."""
    try:
        document = json.loads(zlib.decompress(data))
        return {
            name: {start + row[0] * step: _bucket(row) for row in rows}
            for name, rows in document.items()
            if names is None or name in names
        }
    except (zlib.error, TypeError, AttributeError, LookupError) as error:
        raise ValueError(f"a row of the history cannot be read: {type(error).__name__}") from None


def _bucket(row: list[float]) -> Bucket:
    if len(row) == 2:
        return Bucket(1, row[1], row[1], row[1])
    _, samples, total, low, high = row
    return Bucket(int(samples), total, low, high)
