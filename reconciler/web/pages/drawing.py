"""Pictures drawn on the server as SVG: where their bars go. PURE. Sizes are in units of a view box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from reconciler.web.pages.words import span, utc
from schemas.status import STAGES, RevisionStatus

WIDTH: Final = 100.0
"""Of a waterfall."""
LEAST: Final = 0.8
"""Width of a bar that took no time worth drawing."""


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
