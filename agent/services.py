"""The seam behind which a document becomes true: a service applies all items of its kinds.

Deployments and certificates get services of their own; until then :class:`RecordingService` stands in for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.session import Item, ItemResult


class Service(Protocol):
    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of items that it applies; no two services share one."""
        ...

    async def apply(self, items: tuple[Item, ...]) -> Sequence[ItemResult]:
        """Make exactly these items true, and what is no longer among them untrue. Called again it finds nothing to do.

        Returns one result an item. ``Failed`` and ``Progressing`` bring another call, later.
        """
        ...


class RecordingService:
    """Checks items and acknowledges them. ``Applied`` means here: the document is on disk and the item is well-formed.

    Nothing on the machine changes, and the reason of each result says so.
    """

    def __init__(self, kinds: frozenset[str]) -> None:
        self.kinds = kinds
        self.items: tuple[Item, ...] = ()

    async def apply(self, items: tuple[Item, ...]) -> Sequence[ItemResult]:
        self.items = items
        return [self._check(item) for item in items]

    @staticmethod
    def _check(item: Item) -> ItemResult:
        if not item.id.startswith(f"{item.kind}/"):
            return ItemResult(
                id=item.id, state="Failed", reason="WrongId", message=f"An item of kind {item.kind} has another id."
            )
        if not item.spec:
            return ItemResult(id=item.id, state="Failed", reason="EmptySpec", message="There is nothing to apply.")
        return ItemResult(
            id=item.id, state="Applied", reason="Recorded", message="Checked and on disk; nothing acts on it here yet."
        )
