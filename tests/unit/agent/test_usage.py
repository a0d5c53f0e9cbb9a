"""What deployments use is asked beside heartbeats, and never makes one late."""

from __future__ import annotations

import asyncio

import pytest

from agent.deployments.driver import DriverError, Stats
from agent.deployments.observed import Instance
from agent.deployments.usage import Running, UsageGatherer, UsageSettings
from agent.deployments.workload import Key
from tests.support.model_engine import ModelDriver, ModelEngine


class Driver(ModelDriver):
    """Answers, refuses, fails or hangs by the name of the deployment."""

    async def stats(self, instance: Instance) -> Stats:
        if instance.key.name == "hangs":
            await asyncio.Event().wait()
        if instance.key.name == "refused":
            raise DriverError("EngineUnavailable", "away", engine=True)
        if instance.key.name == "bug":
            raise KeyError("cpu_stats")
        return Stats(1.5, 2048, 3)


def running(*names: str) -> list[Running]:
    driver = Driver(ModelEngine(), "container")
    return [Running(driver, Instance(one, Key("shop", one), "", "a", "running", restarts=2)) for one in names]


def test_what_one_engine_does_not_say_is_not_said_of_another(caplog: pytest.LogCaptureFixture) -> None:
    """A deployment whose driver hangs, refuses or fails is left out; the others are told."""

    async def scenario() -> None:
        gatherer = UsageGatherer(
            lambda: running("web", "hangs", "refused", "bug", "api"), settings=UsageSettings(patience=0.05)
        )
        await gatherer.once()
        assert [one.name for one in gatherer.usage()] == ["api", "web"]
        first = gatherer.usage()[0]
        assert (first.cpu_seconds, first.memory_bytes, first.pids, first.restarts) == (1.5, 2048, 3, 2)

    asyncio.run(scenario())
    assert "KeyError" in caplog.text


def test_asking_never_holds_up_a_heartbeat() -> None:
    """While the engine hangs, what it said before is told at once."""

    async def scenario() -> None:
        now = running("web")
        gatherer = UsageGatherer(lambda: now, settings=UsageSettings(patience=60.0))
        await gatherer.once()
        now = running("web", *["hangs"] * 20)
        task = asyncio.create_task(gatherer.once())
        await asyncio.sleep(0)
        assert [one.name for one in gatherer.usage()] == ["web"]
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())


def test_stale_and_gone_are_told_no_more() -> None:
    """What was said too long ago is not known; what serves no more is forgotten."""

    async def scenario() -> None:
        now, serving = [0.0], running("web", "api")
        gatherer = UsageGatherer(lambda: serving, monotonic=lambda: now[0])
        await gatherer.once()
        serving = running("web")
        await gatherer.once()
        assert [one.name for one in gatherer.usage()] == ["web"]
        now[0] = 61.0
        assert gatherer.usage() == ()

    asyncio.run(scenario())
