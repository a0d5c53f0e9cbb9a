"""What an agent runs is removed with it where that is asked for, and what is another's stays."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.deployments.actions import Action, Remove, RemoveNetwork, RemoveVolumes
from agent.deployments.driver import DriverAbsent, DriverError
from agent.deployments.given import Given
from agent.deployments.memory import MemoryFiles
from agent.deployments.observed import Instance, Observed
from agent.deployments.rollout import Memory
from agent.deployments.workload import Key
from agent.installing.plan import Cannot
from agent.installing.removal import remove_all
from tests.support.model_engine import ModelDriver, ModelEngine

NOWHERE = Path("/nowhere")
WEB, DB = Key("shop", "web"), Key("shop", "db")


class Driver(ModelDriver):
    """Has what a test says, and writes down what it is asked for."""

    def __init__(self, observed: Observed | DriverError) -> None:
        super().__init__(ModelEngine(), "container")
        self.found = observed
        self.done: list[Action] = []

    async def observe(self) -> Observed:
        if isinstance(self.found, DriverError):
            raise self.found
        return self.found

    async def carry_out(self, action: Action, given: Given) -> None:
        self.done.append(action)


SEEN = Observed(
    (Instance("1", WEB, "d", "a", "running"), Instance("2", DB, "d", "b", "exited")),
    frozenset({WEB}),
    frozenset({DB}),
)


@pytest.mark.parametrize("volumes", [False, True])
def test_all_that_the_drivers_see_is_removed(volumes: bool) -> None:
    """Instances and networks, and data only where that was asked for: a driver sees nothing that is not ours."""
    driver = Driver(SEEN)
    absent = Driver(DriverAbsent("There is no container engine."))
    asyncio.run(remove_all(NOWHERE, volumes=volumes, drivers=[absent, driver]))
    removed = [type(one) for one in driver.done]
    assert removed == [Remove, Remove, RemoveNetwork, *([RemoveVolumes] if volumes else [])]


def test_an_engine_that_does_not_answer_is_said() -> None:
    """Nobody should believe that containers are gone which are not."""
    driver = Driver(DriverError("EngineUnavailable", "The engine does not answer.", engine=True))
    with pytest.raises(Cannot, match="was not removed"):
        asyncio.run(remove_all(NOWHERE, volumes=False, drivers=[driver]))


def test_an_engine_that_was_stopped_after_it_ran_something_is_said(tmp_path: Path) -> None:
    """What it ran is still there, and comes back with it; where it never ran anything, nothing is in the way."""
    driver = Driver(DriverAbsent("No container engine listens at /run/docker.sock.", may_come_back=True))
    asyncio.run(remove_all(tmp_path, volumes=False, drivers=[driver]))
    MemoryFiles(tmp_path, "boot").save(WEB, Memory(type="container"))
    with pytest.raises(Cannot, match=r"No container engine listens at /run/docker.sock. What .* was not removed"):
        asyncio.run(remove_all(tmp_path, volumes=False, drivers=[driver]))
