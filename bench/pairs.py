"""Two sides of a row, measured in turns, and what is reported of them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``ours`` and ``reference`` are medians in ``unit``; ``ratio`` is what ``reach`` bounds.

    ``sense``: ``most`` when the ratio must not exceed ``reach``, ``least`` when it must not stay below.
    """

    name: str
    against: str
    ours: float
    reference: float
    unit: str
    ratio: float
    reach: float
    sense: Literal["most", "least"] = "most"
    rounds: int = 1
    counts: bool = True
    """False for a line that explains another and has no target of its own."""
    notes: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def hit(self) -> bool:
        return self.ratio <= self.reach if self.sense == "most" else self.ratio >= self.reach


class Pairs:
    """Rounds of (ours, reference), in seconds. The ratio is the median of the ratios of each round."""

    def __init__(self) -> None:
        self.ours: list[float] = []
        self.reference: list[float] = []

    def add(self, ours: float, reference: float) -> None:
        self.ours.append(ours)
        self.reference.append(reference)

    def row(
        self,
        name: str,
        against: str,
        reach: float,
        *,
        sense: Literal["most", "least"] = "most",
        counts: bool = True,
        notes: str = "",
        **details: Any,  # noqa: ANN401 - JSON
    ) -> Row:
        """Return the line: milliseconds, and ours to theirs (``least``: theirs to ours)."""
        pairs = list(zip(self.ours, self.reference, strict=True))
        ratios = [ours / theirs if sense == "most" else theirs / ours for ours, theirs in pairs]
        return Row(
            name=name,
            against=against,
            ours=round(statistics.median(self.ours) * 1e3, 2),
            reference=round(statistics.median(self.reference) * 1e3, 2),
            unit="ms",
            ratio=round(statistics.median(ratios), 2),
            reach=reach,
            sense=sense,
            rounds=len(pairs),
            counts=counts,
            notes=notes,
            details={"ratio_spread": _spread(ratios), **details},
        )


def _spread(ratios: Sequence[float]) -> list[float]:
    """The middle half of the ratios."""
    if len(ratios) < 4:
        return [round(min(ratios), 2), round(max(ratios), 2)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return [round(low, 2), round(high, 2)]


class Watch:
    seconds = 0.0


@contextmanager
def timed() -> Iterator[Watch]:
    watch = Watch()
    began = time.perf_counter()
    yield watch
    watch.seconds = time.perf_counter() - began


async def seconds_of(work: Callable[[], Awaitable[Any]]) -> float:
    with timed() as watch:
        await work()
    return watch.seconds


def settle_down() -> None:
    """Collect what the round before left, so that no round pays for another. The program's own garbage stays its own:
    collections within a round count."""
    gc.collect()
