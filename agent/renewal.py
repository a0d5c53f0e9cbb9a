"""When a certificate is renewed. PURE: clock and randomness are arguments; times are POSIX seconds.

At half its life, give or take a tenth of it, so that agents that enrolled together do not stay together, and so that
half a day is left for whatever goes wrong.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

EARLIEST: Final = 0.4
LATEST: Final = 0.6
"""Shares of the life."""

Standing = Literal["missing", "good", "due", "ended"]


class Life(NamedTuple):
    """From when this machine has had a certificate until it ends."""

    begins: float
    ends: float


def renew_at(life: Life, random: float) -> float:
    """Return when to renew; ``random`` is in [0, 1)."""
    share = EARLIEST + (LATEST - EARLIEST) * random
    return life.begins + max(0.0, life.ends - life.begins) * share


def standing(life: Life | None, due: float, now: float) -> Standing:
    """Say how it stands with a certificate that is to be renewed at ``due``."""
    if life is None:
        return "missing"
    if now >= life.ends:
        return "ended"
    return "due" if now >= due else "good"
