"""How long to wait before the next attempt. PURE: randomness is an argument."""

from __future__ import annotations


class Backoff:
    """Exponential back-off with full jitter: any time between now and a ceiling that doubles with each failure.

    Full jitter spreads the agents of a fleet best after all of them lost the control plane at the same moment. Times
    are in seconds.
    """

    def __init__(self, base: float = 0.5, cap: float = 60.0, stable: float = 60.0) -> None:
        self._base = base
        self._cap = cap
        self._stable = stable
        self._failures = 0

    def next(self, random: float, *, at_least: float = 0.0) -> float:
        """Count a failure and return the pause. ``random`` is in [0, 1); ``at_least`` is what the other side asked for.

        The jitter comes on top of what was asked for: everybody may have been asked the same.
        """
        ceiling = min(self._cap, self._base * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return at_least + random * ceiling

    def succeeded(self, lasted: float = float("inf")) -> None:
        """Start anew, unless what succeeded did not last: a connection that breaks at once is no success."""
        if lasted >= self._stable:
            self._failures = 0
