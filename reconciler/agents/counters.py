"""What a hub counts. Counters only grow; they are for metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class HubCounters:
    """Of all connections, past ones included."""

    accepted: int = 0
    turned_away: int = 0
    """For want of room, with Retry-After."""
    messages: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(type, ``in`` from agents or ``out`` to them) → messages; of agents only those that counted."""
    stalled: int = 0
    unsignable: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    """Reason → messages of agents that counted for nothing."""
    closed: Counter[str] = field(default_factory=Counter)
    """Reason → connections."""

    @property
    def sent(self) -> int:
        """Messages to agents."""
        return sum(count for (_, direction), count in self.messages.items() if direction == "out")
