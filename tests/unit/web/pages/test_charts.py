"""Charts: scales, gaps, labels, and the same in words."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.web.pages.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    LINES,
    TOP,
    WIDTH,
    Line,
    chart,
    round_above,
    times,
    used_of,
)
from schemas.metrics_api import Points

NOW = 1_900_000_800.0  # 17 March 2030, 18:00 UTC
HOUR = 3600.0


def points(values: dict[int, float], *, spread: float = 0.0) -> Points:
    """Points at seconds before now."""
    at = sorted((int(NOW) - ago, value) for ago, value in values.items())
    return Points(
        unit="ratio",
        at=tuple(when for when, _ in at),
        samples=tuple(1 for _ in at),
        mean=tuple(value for _, value in at),
        low=tuple(value - spread for _, value in at),
        high=tuple(value + spread for _, value in at),
    )


def numbers(path: str) -> list[float]:
    return [float(one) for one in re.findall(r"-?[0-9.]+", path)]


def test_a_share_is_drawn_between_nothing_and_all_of_it() -> None:
    """Half of it is half-way up, now is at the right edge."""
    drawn = chart(
        "CPU", [Line("used", points({3600: 0.0, 10: 1.0}))], NOW - HOUR, NOW, unit="ratio", step=20, ceiling=1
    )
    assert [tick.label for tick in drawn.scale] == ["0 %", "50 %", "100 %"]
    assert [tick.at for tick in drawn.scale] == [HEIGHT - BOTTOM, (HEIGHT - BOTTOM + TOP) / 2, TOP]
    assert drawn.lines[0].newest == "100 %"
    assert numbers(drawn.lines[0].path)[-2:] == [WIDTH - 8, TOP]


def test_a_time_without_samples_is_a_gap() -> None:
    """Two lines, none across what nobody measured; a point alone is a dot."""
    values = dict.fromkeys((600, 590, 580, 300, 290, 280, 100), 0.5)
    path = chart("CPU", [Line("used", points(values))], NOW - HOUR, NOW, unit="ratio", step=10, ceiling=1).lines[0].path
    assert path.count("M") == 3
    assert path.endswith("h0")


def test_points_as_far_apart_as_heartbeats_are_no_gaps() -> None:
    """An agent that tells every half minute has a line all the same."""
    values = dict.fromkeys(range(0, 600, 30), 0.5)
    assert (
        chart("CPU", [Line("used", points(values))], NOW - HOUR, NOW, unit="ratio", step=10).lines[0].path.count("M")
        == 1
    )


def test_nothing_measured_is_said() -> None:
    """An empty chart says so, in the picture and in words."""
    drawn = chart("CPU", [Line("used", points({}))], NOW - HOUR, NOW, unit="ratio", step=10, ceiling=1)
    assert drawn.is_empty
    assert drawn.text == "CPU, from 17 Mar 17:00 to 17 Mar 18:00 UTC. used: nothing was measured."


def test_words_say_last_mean_and_most() -> None:
    """Who sees no picture hears the three numbers that it shows."""
    drawn = chart("CPU", [Line("used", points({60: 0.5, 30: 0.1}))], NOW - HOUR, NOW, unit="ratio", step=10, ceiling=1)
    assert drawn.text.endswith("used: last 10 %, on average 30 %, at most 50 % at 17 Mar 17:59.")


@pytest.mark.parametrize(
    ("value", "unit", "top"),
    [(0.0, "count", 1.0), (3.0, "count", 5.0), (5.0, "count", 5.0), (0.11, "cores", 0.2), (900.0, "bytes", 1024.0),
     (3e9, "bytes", 2.0**32), (math.inf, "bytes", 1.0)],
)  # fmt: skip
def test_scales_end_at_round_numbers(value: float, unit: str, top: float) -> None:
    """1, 2 and 5 of ten, or a power of two for bytes."""
    assert round_above(value, unit) == pytest.approx(top)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hours", "labels"),
    [(1, ["17:00", "17:15", "17:30", "17:45", "18:00"]),
     (6, ["12:00", "13:00", "14:00", "15:00", "16:00", "17:00", "18:00"]),
     (24, ["20:00", "00:00", "04:00", "08:00", "12:00", "16:00"]),
     (168, ["11 Mar", "12 Mar", "13 Mar", "14 Mar", "15 Mar", "16 Mar", "17 Mar"])],
)  # fmt: skip
def test_times_are_round(hours: int, labels: list[str]) -> None:
    """Quarters, hours, days: few enough to be read on a phone."""
    assert [label for _, label in times(NOW - hours * HOUR, NOW)] == labels


def test_what_was_free_becomes_what_was_used() -> None:
    """The least that was free is the most that was used."""
    used = used_of(points({10: 3.0}, spread=1.0), 10.0)
    assert (used.low, used.mean, used.high) == ((6.0,), (7.0,), (8.0,))


def test_more_lines_than_anybody_tells_apart_are_counted() -> None:
    """Ten agents: eight lines, two left out."""
    lines = [Line(f"vps-{number}", points({10: 1.0})) for number in range(LINES + 2)]
    assert chart("CPU", lines, NOW - HOUR, NOW, unit="cores", step=10).left_out == 2


@given(
    values=st.dictionaries(st.integers(-7200, 7200), st.floats(-1e18, 1e18), max_size=40),
    unit=st.sampled_from(["ratio", "bytes", "bytes/s", "cores", "count", "seconds"]),
    ceiling=st.one_of(st.none(), st.floats(0, 1e18)),
)
def test_whatever_was_measured_stays_within_the_frame(
    values: dict[int, float], unit: str, ceiling: float | None
) -> None:
    """Numbers come from agents: none of them draws outside of its chart, or breaks it."""
    drawn = chart("x", [Line("y", points(values))], NOW - HOUR, NOW, unit=unit, step=10, ceiling=ceiling)  # type: ignore[arg-type]
    for path in (drawn.lines[0].path.replace("h0", ""), drawn.lines[0].band):
        found = numbers(path)
        assert all(LEFT <= x <= WIDTH for x in found[::2])
        assert all(TOP <= y <= HEIGHT for y in found[1::2])
