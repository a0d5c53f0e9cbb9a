"""Run a coroutine as far as it goes without waiting, and hand only what remains to a task.

Nearly every send to an agent ends at once, because the transport has room. A task for each costs more than the send
(docs/adr/0008). ``asyncio.eager_task_factory`` does the same from Python 3.12 on.

The first stretch runs inside the caller's task. A coroutine that asks for the current task before its first wait, as
``asyncio.timeout`` does, must not be started here.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any


class Remainder:
    """A started coroutine that has to wait. Await it once, or :meth:`drop` it."""

    __slots__ = ("_coroutine", "_waiting")

    def __init__(self, coroutine: Coroutine[Any, Any, None], waiting: object) -> None:
        self._coroutine = coroutine
        self._waiting = waiting
        """What the coroutine yielded: the future that it waits for."""

    def __await__(self) -> Generator[Any, Any, None]:
        waiting = self._waiting
        try:
            while True:
                try:
                    sent = yield waiting
                except GeneratorExit:
                    self._coroutine.close()
                    raise
                except BaseException as error:  # noqa: BLE001  a cancellation is the coroutine's to handle
                    waiting = self._coroutine.throw(error)
                else:
                    waiting = self._coroutine.send(sent)
        except StopIteration:
            return

    def drop(self) -> None:
        """End it where it waits."""
        self._coroutine.close()


def start(coroutine: Coroutine[Any, Any, None]) -> Remainder | None:
    """Run ``coroutine`` until it waits; None when it came to its end. Raises whatever it raises until then."""
    try:
        waiting = coroutine.send(None)
    except StopIteration:
        return None
    return Remainder(coroutine, waiting)
