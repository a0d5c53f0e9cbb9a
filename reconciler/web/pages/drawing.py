"""Pictures drawn on the server as SVG: where their bars and lines go. PURE. Sizes are in units of a view box."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from reconciler.web.pages.words import span, utc
from schemas.status import STAGES, RevisionStatus

WIDTH: Final = 100.0
"""Of a waterfall."""
LEAST: Final = 0.8
"""Width of a bar that took no time worth drawing."""
Point = tuple[datetime | float, float | None]
"""A time and a value; None where nothing was measured, which is a gap in the line."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One stage. ``left`` and ``width`` are of 100; ``seconds`` since the stage before, None where not reached."""

    stage: str
    left: float
    width: float
    seconds: float | None
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Waterfall:
    """The stages of a revision, one below the other. ``text`` says the same in words."""

    bars: tuple[Bar, ...]
    seconds: float
    text: str


def waterfall(status: RevisionStatus) -> Waterfall:
    """Return how long each stage of a revision took, from when it was fetched.

    A stage counts from the latest of those before it: after a restart some may be reached twice, and out of order.
    """
    times = {stage: utc(at).timestamp() for stage in STAGES if (at := status.stages.get(stage)) is not None}
    start = min(times.values(), default=0.0)
    total = max(times.values(), default=0.0) - start
    scale = (WIDTH - LEAST) / total if total > 0 else 0.0
    bars, before = [], start
    for stage in STAGES:
        if stage not in times:
            bars.append(Bar(stage, 0.0, 0.0, None, None))
            continue
        reached = max(times[stage], before)
        left, width = (before - start) * scale, max(LEAST, (reached - before) * scale)
        bars.append(Bar(stage, round(left, 2), round(width, 2), reached - before, status.stages[stage]))
        before = reached
    return Waterfall(tuple(bars), total, _in_words(bars, total))


def _in_words(bars: Sequence[Bar], total: float) -> str:
    reached = [f"{bar.stage} {span(bar.seconds)}" for bar in bars if bar.seconds is not None]
    missing = [bar.stage for bar in bars if bar.seconds is None]
    said = f"{', '.join(reached)}; {span(total)} in all" if reached else "no stage was reached"
    return said + (f"; not reached: {', '.join(missing)}" if missing else "")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart. ``path`` is SVG's ``d``; ``last`` is the newest value."""

    name: str
    path: str
    last: float | None


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines over time in a box of ``width`` × ``height``. ``ticks``: (height from above, value)."""

    lines: tuple[Line, ...]
    width: int
    height: int
    ticks: tuple[tuple[float, float], ...]
    begin: datetime | None
    end: datetime | None
    is_empty: bool


def plot(
    series: Mapping[str, Sequence[Point]], *, width: int = 600, height: int = 120, top: float | None = None
) -> Plot:
    """Return where the lines of a chart go. ``top``: the largest value of the scale, found from the values unless said.

    The scale begins at zero, so that small changes do not look large.
    """
    values = [value for points in series.values() for _, value in points if value is not None]
    times = [utc(at).timestamp() for points in series.values() for at, _ in points]
    if not values:
        lines = tuple(Line(name, "", None) for name in series)
        return Plot(lines, width, height, (), None, None, is_empty=True)
    largest = top if top is not None else _round_up(max(values))
    begin, end = min(times), max(times)
    per_second, per_value = width / ((end - begin) or 1.0), height / (largest or 1.0)

    def place(at: datetime | float, value: float) -> str:
        x = (utc(at).timestamp() - begin) * per_second
        y = height - min(max(value, 0.0), largest) * per_value
        return f"{x:.1f} {y:.1f}"

    lines = tuple(Line(name, _path(points, place), _last(points)) for name, points in series.items())
    ticks = tuple((round(height * (1 - part), 1), largest * part) for part in (1.0, 0.5, 0.0))
    return Plot(lines, width, height, ticks, utc(begin), utc(end), is_empty=False)


def _path(points: Sequence[Point], place: object) -> str:
    assert callable(place)
    parts, is_drawing = [], False
    for at, value in points:
        if value is not None:
            parts.append(f"{'L' if is_drawing else 'M'}{place(at, value)}")
        is_drawing = value is not None
    return "".join(parts)


def _last(points: Sequence[Point]) -> float | None:
    return next((value for _, value in reversed(points) if value is not None), None)


def _round_up(value: float) -> float:
    """Return a round number that is not below ``value``: 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if value <= step * power * (1 + 1e-9))
