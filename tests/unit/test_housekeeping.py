"""What has to be done now and then goes on, whatever one round meets."""

from __future__ import annotations

import asyncio

import pytest

from reconciler import housekeeping
from reconciler.desired.state import State
from reconciler.errors import Transient
from reconciler.housekeeping import Housekeeping
from reconciler.observability.metrics import Metrics
from tests.support.waiting import eventually


class Rounds:
    """A store with nothing in it, and a mirror whose first rounds end badly."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.done = 0

    async def backlog(self) -> tuple[int, float | None]:
        return 0, None

    async def prune_tokens(self, before: float) -> int:
        return 0

    async def prune_outbox(self, before: float) -> int:
        return 0

    async def prune_events(self, *, keep: int, before: float) -> int:
        return 0

    async def prune_records(self, keep: int) -> int:
        return 0

    async def tidy(self) -> bool:
        if self.errors:
            raise self.errors.pop(0)
        self.done += 1
        return False


def test_a_round_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is busy and a mirror that may not be read end one round each, and never the process."""
    monkeypatch.setattr(housekeeping, "SECONDS", 0.0)

    async def scenario() -> None:
        rounds = Rounds(Transient("busy"), PermissionError(13, "Permission denied"))
        task = asyncio.create_task(Housekeeping(rounds, rounds, Metrics(), State).run())
        await eventually(lambda: task.done() or rounds.done > 1)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
