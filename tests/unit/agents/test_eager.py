from __future__ import annotations

import asyncio

import pytest

from reconciler.agents.eager import start


def test_what_does_not_wait_ends_at_once() -> None:
    """A coroutine without a wait needs no loop and no task."""
    steps: list[str] = []

    async def straight() -> None:
        steps.append("done")

    assert start(straight()) is None
    assert steps == ["done"]


def test_an_error_before_the_first_wait_is_raised_at_once() -> None:
    """The caller sees it as from a plain function."""

    async def broken() -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        start(broken())


def test_the_rest_runs_in_a_task() -> None:
    """A coroutine that waits goes on where it was, through several waits, with values and errors passed on."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        first, second = loop.create_future(), loop.create_future()
        steps: list[object] = []

        async def waits() -> None:
            steps.append(await first)
            await asyncio.sleep(0)
            try:
                await second
            except OSError:
                steps.append("caught")

        remainder = start(waits())
        assert remainder is not None

        async def finish() -> None:
            await remainder

        task = asyncio.create_task(finish())
        await asyncio.sleep(0)
        first.set_result("first")
        second.set_exception(OSError("second"))
        await task
        assert steps == ["first", "caught"]

    asyncio.run(scenario())


@pytest.mark.parametrize("drop", [True, False])
def test_what_is_dropped_or_cancelled_cleans_up(drop: bool) -> None:
    """Its finally blocks run, whichever way it ends."""

    async def scenario() -> None:
        steps: list[str] = []

        async def waits() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                steps.append("cleaned")

        remainder = start(waits())
        assert remainder is not None
        if drop:
            remainder.drop()
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await remainder
        assert steps == ["cleaned"]

    asyncio.run(scenario())
