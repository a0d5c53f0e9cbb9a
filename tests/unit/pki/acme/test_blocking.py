from __future__ import annotations

import asyncio
import threading

import pytest

from reconciler.pki.acme.blocking import in_thread


def test_results_and_errors_come_back() -> None:
    """Arguments go in, what is returned or raised comes out, and the loop goes on meanwhile."""

    async def scenario() -> None:
        assert await in_thread(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await in_thread(divmod, 7, 0)
        go_on = threading.Event()
        waiting = asyncio.create_task(in_thread(go_on.wait, 10))
        await asyncio.sleep(0)
        go_on.set()
        assert await waiting

    asyncio.run(scenario())


def test_a_call_whose_caller_has_gone_holds_up_nothing() -> None:
    """After a cancellation neither the caller nor the end of the loop waits; what comes late is not heard."""
    go_on, done = threading.Event(), threading.Event()

    def late() -> None:
        go_on.wait(60)
        done.set()

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(in_thread(late), 0.01)

    asyncio.run(scenario())
    assert not done.is_set()  # the thread still waits, and nobody waited for it
    go_on.set()
    assert done.wait(10)


def test_an_answer_after_a_cancellation_disturbs_no_loop() -> None:
    """The loop is still there when the thread ends: its result goes nowhere."""
    go_on = threading.Event()

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(in_thread(go_on.wait, 10), 0.01)
        go_on.set()
        assert await in_thread(int, "1") == 1

    asyncio.run(scenario())
