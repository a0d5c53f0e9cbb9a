"""When what waits for a channel is told. PURE."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from reconciler.notifications.conditions import Notice
from schemas.names import seconds
from schemas.notifications import Channel, Quiet

MOST_IN_ONE: Final = 50
"""Notices of one message; the rest is a number."""


def due(channel: Channel, waiting: Sequence[Notice], now: float) -> tuple[Notice, ...]:
    """Return which of those that wait, oldest first, are to be told in one message now; all of them, or only errors.

    Args:
        channel: whose notices they are.
        waiting: oldest first.
        now: POSIX seconds.
    """
    if not waiting:
        return ()
    if channel.quiet is not None and is_quiet(channel.quiet, now):
        waiting = () if channel.quiet.errors else tuple(one for one in waiting if _is_urgent(one))
    ripe = bool(waiting) and now - waiting[0].at >= seconds(channel.digest)
    return tuple(waiting) if ripe or any(one.kind == "test" for one in waiting) else ()


def is_quiet(quiet: Quiet, now: float) -> bool:
    """Say whether a time (POSIX seconds) lies in the quiet hours, by the clocks of their zone."""
    local = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(quiet.time_zone)).time()
    begin, end = time.fromisoformat(quiet.begin), time.fromisoformat(quiet.end)
    return begin <= local < end if begin < end else local >= begin or local < end


def pause(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row."""
    return timedelta(seconds=min(600.0, 5.0 * 2.0 ** min(failures - 1, 10))).total_seconds()


def _is_urgent(one: Notice) -> bool:
    return one.kind == "test" or (one.condition.severity == "error" and one.kind != "reminded")
