"""The seams behind which a document becomes true: a service applies all items of its kinds, an asker may ask for more.

Which services there are, :mod:`agent.building` says. :class:`RecordingService` is for items that ask for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from agent.session import Ask, Event
from schemas.session import CertificateAnswer, Item, ItemResult


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


@runtime_checkable
class Changing(Protocol):
    """A service of which something can become true, or untrue, between two documents."""

    on_change: Callable[[], None]
    """Call it when :meth:`Service.apply` would return something else than the last time; the client sets it."""


class Asker(Changing, Protocol):
    """A service that asks the control plane for certificates. Calls come from the loop's thread and must not block."""

    def connected(self, ask: Callable[[Ask], None]) -> None:
        """A connection stands; ``ask`` is good until :meth:`disconnected`."""
        ...

    def disconnected(self) -> None: ...

    def answered(self, answer: CertificateAnswer) -> None: ...


class Line(NamedTuple):
    """A way to the control plane, as long as one connection stands."""

    say: Callable[[Event], None]
    waiting: Callable[[str], int]
    """Characters of the output of the command with this id that wait to be sent."""


class Extension(Protocol):
    """Somebody who uses one feature of the conversation (``schemas.session.FEATURES``). Calls come from the loop's
    thread and must not block.
    """

    feature: str

    def offered(self, offered: bool, /) -> None:
        """A document is in force from now on, and its control plane offers the feature or does not."""
        ...

    def begun(self, line: Line, /) -> None:
        """Both sides know the feature in this connection; ``line`` is good until :meth:`ended`."""
        ...

    def ended(self) -> None: ...

    def heard(self, what: object, /) -> None:
        """The control plane said something: a message of the feature, or for ``observations`` the token of the
        :class:`agent.talk.Seen` that every front serves.
        """
        ...


class Nobody:
    """Asks for nothing."""

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None

    def connected(self, ask: Callable[[Ask], None]) -> None:
        pass

    def disconnected(self) -> None:
        pass

    def answered(self, answer: CertificateAnswer) -> None:
        pass


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
