"""The life of a certificate as a line: issued, the time in which it is renewed, its end, and where now is. PURE."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

WIDTH: Final = 100.0


class Lifetime(NamedTuple):
    """Places on a line of :data:`WIDTH`. ``tone``: ``good``, ``due`` (it should have been renewed) or ``over``."""

    begun: datetime
    renewed: datetime
    """When it is to be renewed."""
    ends: datetime
    now: float
    renew: float
    tone: str
    text: str
    """The same in words."""


def lifetime(begun: datetime | None, ends: datetime | None, renew_before: timedelta, now: datetime) -> Lifetime | None:
    """Return the line of a certificate; None where there is none yet."""
    if begun is None or ends is None or ends <= begun:
        return None
    renewed = max(begun, ends - renew_before)
    tone = "over" if now >= ends else "due" if now >= renewed else "good"
    days = (ends - now).total_seconds() / 86_400
    left = f"ended {-days:.1f} days ago" if days < 0 else f"{days:.1f} days are left"
    text = f"Issued {begun:%Y-%m-%d}, renewed from {renewed:%Y-%m-%d} on, ends {ends:%Y-%m-%d}; {left}."
    return Lifetime(begun, renewed, ends, _place(now, begun, ends), _place(renewed, begun, ends), tone, text)


def _place(when: datetime, begun: datetime, ends: datetime) -> float:
    share = (when - begun) / (ends - begun)
    return round(min(1.0, max(0.0, share)) * WIDTH, 2)
