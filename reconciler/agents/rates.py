"""How often something may happen: token buckets, one or one for each caller. PURE: the clock is an argument."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Final

MAX_CALLERS: Final = 10_000


class Bucket:
    """Holds up to ``capacity`` and fills by ``per_second``; time is monotonic seconds."""

    __slots__ = ("_capacity", "_level", "_per_second", "_seen")

    def __init__(self, capacity: float, per_second: float) -> None:
        self._capacity = capacity
        self._per_second = per_second
        self._level = capacity
        self._seen: float | None = None

    def wait(self, now: float) -> float:
        """Return the seconds until one can be taken, 0 when it can be now."""
        self._fill(now)
        return 0.0 if self._level >= 1 else (1 - self._level) / self._per_second

    def take(self, now: float) -> float:
        """Take one and return 0, or take none and return the seconds to wait."""
        seconds = self.wait(now)
        if not seconds:
            self._level -= 1
        return seconds

    def share(self, now: float) -> float:
        """Return how full it is, 0 to 1."""
        self._fill(now)
        return self._level / self._capacity

    def give_back(self) -> None:
        """Undo one ``take``."""
        self._level = min(self._capacity, self._level + 1)

    def _fill(self, now: float) -> None:
        passed = 0.0 if self._seen is None else max(0.0, now - self._seen)
        self._level = min(self._capacity, self._level + passed * self._per_second)
        self._seen = now


class CallerBuckets:
    """A bucket for each address; an IPv6 caller is its /64, since one machine has them all. Oldest go first."""

    def __init__(self, capacity: float, per_second: float, *, callers: int = MAX_CALLERS) -> None:
        self._capacity = capacity
        self._per_second = per_second
        self._callers = callers
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def of(self, address: str) -> Bucket:
        key = _caller(address)
        bucket = self._buckets.pop(key, None) or Bucket(self._capacity, self._per_second)
        self._buckets[key] = bucket
        if len(self._buckets) > self._callers:
            self._buckets.popitem(last=False)
        return bucket


def _caller(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
