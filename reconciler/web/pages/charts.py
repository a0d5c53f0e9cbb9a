"""Charts as geometry: what templates draw as SVG, and what they say to those who see no picture. Pure.

The scale begins at zero and ends at a round number above the largest value; a time without samples is a gap, never a
line across it. A line is the mean, with the band between the smallest and the largest value of each step behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import Final, NamedTuple

from reconciler.web.amounts import amount
from schemas.metrics import Unit
from schemas.metrics_api import Points

WIDTH: Final = 400
HEIGHT: Final = 170
LEFT: Final = 58
"""Room for the labels of the scale."""
RIGHT: Final = 8
TOP: Final = 10
BOTTOM: Final = 24
LINES: Final = 6
"""Lines that one chart can tell apart."""
WHOLE_DAY: Final = 86_400
_GAP: Final = 2.5
"""Times the usual distance of two points, from which on there is a gap between them."""
_TICKS: Final[Sequence[tuple[float, int]]] = (
    (2 * 3600, 900), (8 * 3600, 3600), (30 * 3600, 4 * 3600), (8 * 86_400, WHOLE_DAY), (40 * 86_400, 5 * WHOLE_DAY)
)  # fmt: skip
"""Up to so many seconds shown → seconds between labels of the time."""


class Line(NamedTuple):
    """What one line shows."""

    label: str
    points: Points


class Tick(NamedTuple):
    """A label, and where its line is drawn."""

    at: float
    label: str


class Drawn(NamedTuple):
    """One line. ``path`` and ``band`` are path data (SVG 2, 9.3)."""

    label: str
    path: str
    band: str
    newest: str
    """Its last value, with its unit; empty where it has none."""
    number: int
    """From 0; chooses colour and dashes."""


class Chart(NamedTuple):
    """One picture. Lengths are those of the view box, :data:`WIDTH` by :data:`HEIGHT`."""

    title: str
    text: str
    """The same in words."""
    lines: tuple[Drawn, ...]
    scale: tuple[Tick, ...]
    times: tuple[Tick, ...]
    left_out: int = 0
    """Lines for which there was no room."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM

    @property
    def is_empty(self) -> bool:
        """Say whether nothing was measured in that time."""
        return not any(line.path for line in self.lines)


class _Frame(NamedTuple):
    since: float
    until: float
    top: float
    """The value at the upper edge."""

    def x(self, when: float) -> float:
        share = (when - self.since) / (self.until - self.since)
        return LEFT + min(1.0, max(0.0, share)) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = min(1.0, max(0.0, value / self.top))
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def chart(
    title: str,
    lines: Sequence[Line],
    since: float,
    until: float,
    *,
    unit: Unit,
    step: int,
    ceiling: float | None = None,
) -> Chart:
    """Return the chart of a time. ``ceiling``: a value that the scale has to reach, such as all there is of it."""
    largest = max((value for line in lines for value in line.points.high), default=0.0)
    wanted = max(largest, ceiling or 0.0)
    top = ceiling if ceiling and largest <= ceiling else round_above(wanted, unit)
    frame = _Frame(since, until, top or 1.0)
    drawn = tuple(_drawn(number, line, frame, unit, step) for number, line in enumerate(lines[:LINES]))
    return Chart(
        title=title,
        text=words(title, lines[:LINES], since, until, unit),
        lines=drawn,
        scale=tuple(Tick(round(frame.y(part), 1), amount(part, unit)) for part in (0.0, frame.top / 2, frame.top)),
        times=tuple(Tick(round(frame.x(when), 1), label) for when, label in times(since, until)),
        left_out=max(0, len(lines) - LINES),
    )


def used_of(points: Points, total: float) -> Points:
    """Turn what was free of ``total`` into what was in use."""
    return points.model_copy(
        update={
            "mean": tuple(max(0.0, total - one) for one in points.mean),
            "low": tuple(max(0.0, total - one) for one in points.high),
            "high": tuple(max(0.0, total - one) for one in points.low),
        }
    )


def round_above(value: float, unit: Unit) -> float:
    """Return a round number that is not smaller: 1, 2, 4 … times a power of 1024 for bytes, else 1, 2 or 5 of ten."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    if unit in ("bytes", "bytes/s"):
        return max(1024.0, 2.0 ** math.ceil(math.log2(value) - 1e-9))
    value = max(value, 0.01)  # below it is nothing that anybody would look at closer
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= value * (1 - 1e-9))


def times(since: float, until: float) -> Iterator[tuple[float, str]]:
    """Yield round times (UTC) with their labels."""
    span = until - since
    step = next((step for most, step in _TICKS if span <= most), 30 * WHOLE_DAY)
    form = "%d %b" if step >= WHOLE_DAY else "%H:%M"
    when = math.ceil(since / step) * step
    while when <= until:
        yield when, datetime.fromtimestamp(when, UTC).strftime(form)
        when += step


def words(title: str, lines: Sequence[Line], since: float, until: float, unit: Unit) -> str:
    """Say in a sentence a line what the picture shows."""
    first, last = (datetime.fromtimestamp(when, UTC).strftime("%d %b %H:%M") for when in (since, until))
    said = [f"{title}, from {first} to {last} UTC."]
    for line in lines:
        points = line.points
        if not points.at:
            said.append(f"{line.label}: nothing was measured.")
            continue
        highest = max(range(len(points.at)), key=points.high.__getitem__)
        mean = sum(m * n for m, n in zip(points.mean, points.samples, strict=True)) / max(1, sum(points.samples))
        when = datetime.fromtimestamp(points.at[highest], UTC).strftime("%d %b %H:%M")
        said.append(
            f"{line.label}: last {amount(points.mean[-1], unit)}, on average {amount(mean, unit)}, at most "
            f"{amount(points.high[highest], unit)} at {when}."
        )
    return " ".join(said)


def _drawn(number: int, line: Line, frame: _Frame, unit: Unit, step: int) -> Drawn:
    points = line.points
    pieces = list(_pieces(points.at, step))
    newest = amount(points.mean[-1], unit) if points.at else ""
    path = "".join(_path(piece, points, frame, step) for piece in pieces)
    return Drawn(line.label, path, "".join(_band(piece, points, frame, step) for piece in pieces), newest, number)


def _pieces(at: Sequence[int], step: int) -> Iterator[range]:
    """Yield the indices of points between which there is no gap."""
    distances = [after - before for before, after in pairwise(at)]
    usual = max(step, median(distances)) if distances else step
    first = 0
    for index, distance in enumerate(distances):
        if distance > _GAP * usual:
            yield range(first, index + 1)
            first = index + 1
    if at:
        yield range(first, len(at))


def _path(piece: range, points: Points, frame: _Frame, step: int) -> str:
    places = [f"{frame.x(points.at[n] + step / 2):.1f} {frame.y(points.mean[n]):.1f}" for n in piece]
    # a point alone becomes a dot: a line without length, with round ends
    return f"M{places[0]}" + ("h0" if len(places) == 1 else "L" + "L".join(places[1:]))


def _band(piece: range, points: Points, frame: _Frame, step: int) -> str:
    if len(piece) == 1:
        return ""
    places = [(frame.x(points.at[n] + step / 2), points.low[n], points.high[n]) for n in piece]
    upper = [f"{x:.1f} {frame.y(high):.1f}" for x, _, high in places]
    lower = [f"{x:.1f} {frame.y(low):.1f}" for x, low, _ in reversed(places)]
    return f"M{'L'.join([*upper, *lower])}Z"
