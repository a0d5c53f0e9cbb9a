"""Deployments whose roll-outs operators have paused. In ``outbox.db``: no commit says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Paused:
    """``deployment``: ``Deployment/<team>/<name>``. ``at``: POSIX seconds."""

    deployment: str
    by: str
    at: float


class PauseStore(Protocol):
    async def pause(self, paused: Paused) -> None:
        """Durable. Who paused first stays on record."""
        ...

    async def resume(self, deployment: str) -> None:
        """Durable."""
        ...

    async def paused(self) -> Sequence[Paused]: ...
