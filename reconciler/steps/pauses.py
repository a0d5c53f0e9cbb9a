"""Who has paused the roll-out of a deployment. Every pause and resumption is an event with its actor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from reconciler.store.pauses import Paused, PauseStore
from reconciler.store.protocols import Event, EventStore
from schemas.objects import ObjectKey


class Store(PauseStore, EventStore, Protocol):
    """What is asked of :class:`reconciler.store.sqlite.SQLiteStore`."""


class Pauses:
    """Kept in memory as it is in the store."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._paused: dict[str, Paused] = {}

    async def load(self) -> None:
        """Take up what an earlier process knew."""
        self._paused = {one.deployment: one for one in await self._store.paused()}

    def by(self, key: ObjectKey) -> str:
        """Say who paused a deployment, empty where nobody did."""
        found = self._paused.get(str(key))
        return "" if found is None else found.by

    async def pause(self, key: ObjectKey, actor: str) -> None:
        """Let no further agent get a change. Raises Transient or Broken when it cannot be written."""
        if str(key) in self._paused:
            return
        paused = Paused(str(key), actor, self._clock())
        await self._store.pause(paused)
        self._paused[str(key)] = paused
        await self._told("RolloutPaused", key, f"{actor} paused the roll-out: no further agent gets a change", actor)

    async def resume(self, key: ObjectKey, actor: str) -> None:
        """Let changes go on. Raises Transient or Broken when it cannot be written."""
        if str(key) not in self._paused:
            return
        await self._store.resume(str(key))
        del self._paused[str(key)]
        await self._told("RolloutResumed", key, f"{actor} let the roll-out go on", actor)

    async def _told(self, kind: str, key: ObjectKey, message: str, actor: str) -> None:
        await self._store.append(Event(self._clock(), kind, "info", str(key), message, actor=actor))
