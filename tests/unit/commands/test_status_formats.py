"""How a convergence record is written for a terminal."""

from __future__ import annotations

import datetime as dt

from reconciler.commands.status_formats import stage_line

NOON = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)


def test_a_stage_that_came_before_the_one_above_it_says_only_when() -> None:
    """Agents are told before a slow front has loaded; a negative time would be read as a mistake."""
    later = NOON + dt.timedelta(milliseconds=38)
    assert stage_line("pushed", later, NOON) == "  pushed       12:00:00.038000  +38 ms"
    assert stage_line("pushed", NOON, later) == "  pushed       12:00:00.000000"
    assert stage_line("fetched", NOON, None) == "  fetched      12:00:00.000000"
