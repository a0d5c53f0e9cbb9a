"""How many agents may come in at a time, and when the others should come back. PURE."""

from __future__ import annotations

from typing import Final

LONGEST_WAIT: Final = 60.0
"""Seconds; nobody is sent away for longer."""


class Admission:
    """Generic cell rate algorithm (ITU-T I.371): ``burst`` at once, then ``per_second``.

    Who is refused is given a slot of its own, one after the other, so that a thousand agents that come at once come
    back spread out and not all at once again.
    """

    def __init__(self, per_second: float, burst: int) -> None:
        self._interval = 1 / per_second
        self._tolerance = (burst - 1) * self._interval
        self._expected = 0.0
        """When the next one would come at exactly the rate."""
        self._slot = 0.0
        """The last slot that was given away."""

    def admit(self, now: float) -> float | None:
        """Return None to let one in, else the seconds after which it should come back."""
        expected = max(self._expected, now)
        if expected - now <= self._tolerance:
            self._expected = expected + self._interval
            return None
        self._slot = min(max(self._slot, now) + self._interval, now + LONGEST_WAIT)
        return self._slot - now
