"""One-time ids that were seen, so that nothing is accepted twice (RFC 9449, 11.1; RFC 7523, 3 rule 7).

Bounded on both sides: in all, and for each key, so that one agent that floods shuts out itself and nobody else. The
memory is lost with the process; what could be replayed then is at most two minutes old.
"""

from __future__ import annotations

import heapq
from collections import Counter
from typing import Final

from reconciler.errors import Refused
from reconciler.pki.jose import refused

CAPACITY: Final = 200_000
PER_KEY: Final = 1_000


class ReplayCache:
    """Remembers (key, id) until the token that carried it is too old to be accepted anyway."""

    def __init__(self, capacity: int = CAPACITY, per_key: int = PER_KEY) -> None:
        self._capacity = capacity
        self._per_key = per_key
        self._seen: set[tuple[str, str]] = set()
        self._ends: list[tuple[float, str, str]] = []
        self._of_key: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._seen)

    def use(self, thumbprint: str, jti: str, *, until: float, now: float) -> None:
        """Take an id.

        Raises:
            Refused: 401 ``replayed`` the second time; 429 when too many are remembered to take one more.
        """
        self._forget(now)
        if (thumbprint, jti) in self._seen:
            raise refused("replayed", "This token was used already.", "Make a new one for each request.")
        if self._of_key[thumbprint] >= self._per_key or len(self._seen) >= self._capacity:
            raise Refused("Too many requests with this key.", status=429, code="too-many-requests", retry_after=10.0)
        self._seen.add((thumbprint, jti))
        self._of_key[thumbprint] += 1
        heapq.heappush(self._ends, (until, thumbprint, jti))

    def _forget(self, now: float) -> None:
        while self._ends and self._ends[0][0] < now:
            _, thumbprint, jti = heapq.heappop(self._ends)
            self._seen.discard((thumbprint, jti))
            self._of_key[thumbprint] -= 1
            if not self._of_key[thumbprint]:
                del self._of_key[thumbprint]
