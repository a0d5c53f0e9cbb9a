"""When the loop looks again, with a clock that the test moves."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.waking import BACKOFF_MOST, Wakes, Waking
from tests.support.waiting import eventually


async def nothing() -> None:
    """Nothing has to be done meanwhile."""


def most(_: float, upper: float) -> float:
    return upper


def test_a_wake_ends_the_wait() -> None:
    """Woken, it does not wait for the poll."""

    async def scenario() -> None:
        waking = Waking(3600)
        task = asyncio.create_task(waking.after_success(nothing))
        await asyncio.sleep(0)
        waking.woken.set()
        await asyncio.wait_for(task, 5)

    asyncio.run(scenario())


def test_a_wake_that_came_before_the_wait_is_not_lost() -> None:
    """A wake during the pass ends the wait that follows, also one whose time is over at once."""

    async def scenario() -> None:
        for poll in (3600.0, 1e-9):
            waking = Waking(poll)
            waking.woken.set()
            await asyncio.wait_for(waking.after_success(nothing), 5)
            assert waking.woken.is_set()

    asyncio.run(scenario())


def test_wakes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a burst, wakes end no more than one wait in the time that each costs."""
    now, waits = [0.0], list[float]()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(asyncio, "sleep", sleep)

    async def scenario() -> None:
        waking = Waking(3600, wakes=Wakes(burst=3, seconds=0.5), clock=lambda: now[0])
        waking.woken.set()
        for _ in range(6):
            await waking.after_success(nothing)

    asyncio.run(scenario())
    assert waits == pytest.approx([0.5] * 3)


def test_pauses_grow_with_failures_and_are_bounded() -> None:
    """Pauses double up to the longest, which is the poll interval where that is longer; success starts over."""

    async def scenario(poll: float) -> list[float]:
        asked: list[float] = []

        def note(_: float, upper: float) -> float:
            asked.append(upper)
            return 0.0

        waking = Waking(poll, randomness=note, wakes=Wakes(burst=1000))
        waking.woken.set()
        for _ in range(7):
            await waking.after_failure(nothing, at_least=0.0)
        await waking.after_success(nothing)
        await waking.after_failure(nothing, at_least=0.0)
        return asked

    assert asyncio.run(scenario(0.2)) == [1, 2, 4, *[BACKOFF_MOST] * 4, 1.1, 1]
    assert asyncio.run(scenario(30))[:7] == [1, 2, 4, 8, 16, 30, 30]


def test_meanwhile_is_done_while_it_waits() -> None:
    """What has to be done between polls is done, again and again, until the time is over."""

    async def scenario() -> None:
        done = 0

        async def meanwhile() -> None:
            nonlocal done
            done += 1

        waking = Waking(3600, randomness=most)
        task = asyncio.create_task(waking.after_success(meanwhile))
        await eventually(lambda: done >= 1, 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())


def test_a_nudge_does_at_once_what_is_done_meanwhile() -> None:
    """It ends no wait for the poll; one that comes while nobody waits is not lost."""

    async def scenario() -> None:
        waking, done = Waking(3600), list[int]()

        async def meanwhile() -> None:
            done.append(len(done))

        waking.nudge()
        task = asyncio.create_task(waking.after_success(meanwhile))
        await eventually(lambda: done == [0], 0.9)
        waking.nudge()
        waking.nudge()
        await eventually(lambda: done[:2] == [0, 1], 0.9)
        assert not task.done()
        waking.woken.set()
        await asyncio.wait_for(task, 5)

    asyncio.run(scenario())
