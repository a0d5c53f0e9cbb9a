"""What is remembered of where agents' deployments answer, and of agents that operators drain.

Both are in ``outbox.db``: an agent that was told that every front knows its new port stops what answered at the old
one, and no commit says either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class SeenAgent:
    """What an agent told last, and which of its endpoints were out of service."""

    name: str
    told: Sequence[Mapping[str, Any]] = ()
    """JSON of each ``schemas.observation.DeploymentObservation``."""
    out: Sequence[tuple[str, str, int, float]] = ()
    """Team, name (both empty: of no deployment), declared port, and since when (POSIX seconds)."""


@dataclass(frozen=True, slots=True)
class Drained:
    """An agent that gets no requests. ``until``: POSIX seconds; None: until somebody ends it."""

    name: str
    reason: str
    by: str
    at: float
    until: float | None = None


class SeenStore(Protocol):
    async def save_seen(self, agents: Sequence[SeenAgent]) -> None:
        """Durable, all or none; replaces what was known of them."""
        ...

    async def seen_agents(self) -> Sequence[SeenAgent]: ...

    async def drain_agent(self, drained: Drained) -> None:
        """Durable; replaces a former drain of the agent."""
        ...

    async def undrain_agent(self, name: str) -> None:
        """Durable."""
        ...

    async def drained_agents(self) -> Sequence[Drained]: ...

    async def forget_seen(self, names: Sequence[str]) -> None:
        """Forget these agents, and that they were drained."""
        ...
