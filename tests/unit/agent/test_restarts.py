"""Restarts at somebody's word: once for each command, by the roll-out's own way, and without another version."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from agent.deployments.driver import DriverError
from agent.deployments.workload import Key
from tests.unit.agent.test_deployment_service import KEY, Machine, run, web

FIRST, SECOND = "1" * 32, "2" * 32


def up(machine: Machine) -> list[str]:
    return [one.id for one in machine.engine.instances.values() if one.up]


def test_a_fresh_instance_takes_the_place(tmp_path: Path) -> None:
    """The instance is another one, of the same image; the deployment stands as before and the command is done."""

    async def scenario(machine: Machine) -> None:
        await machine.settle(web())
        before = up(machine)
        await machine.service.commanding.restart(KEY, FIRST)
        assert machine.service.commanding.standing(KEY, FIRST).state == "under way"
        [said] = await machine.settle(web())
        assert (said.state, said.reason) == ("Applied", "Running")
        assert machine.service.commanding.standing(KEY, FIRST).state == "done"
        assert machine.images() == ["web:good"]
        assert up(machine) != before

    run(scenario, tmp_path)


def test_the_same_command_restarts_once(tmp_path: Path) -> None:
    """Another delivery of a command that is done changes nothing; another command does."""

    async def scenario(machine: Machine) -> None:
        await machine.settle(web())
        seen = [up(machine)]
        for command in (FIRST, FIRST, SECOND):
            await machine.service.commanding.restart(KEY, command)
            await machine.settle(web())
            seen.append(up(machine))
        assert [one != other for one, other in pairwise(seen)] == [True, False, True]

    run(scenario, tmp_path)


def test_with_blue_green_the_old_one_serves_until_the_new_one_is_healthy(tmp_path: Path) -> None:
    """A restart keeps the strategy of the deployment: at no look is there no healthy instance."""

    async def scenario(machine: Machine) -> None:
        item = web(ports=[{"container": 8080, "host": 8081}], rollout={"strategy": "blue-green", "deadline": "60s"})
        await machine.settle(item)
        await machine.service.commanding.restart(KEY, FIRST)
        most = 0
        for _ in range(30):
            await machine.look()
            healthy = [one for one in machine.engine.observe().instances if one.health.state == "healthy"]
            assert healthy
            most = max(most, len(up(machine)))
        assert most == 2
        assert machine.service.commanding.standing(KEY, FIRST).state == "done"

    run(scenario, tmp_path)


def test_an_instance_that_does_not_come_up_leaves_the_former_one(tmp_path: Path) -> None:
    """The restart fails with why; what is wanted is what it was, so nothing is failed or under way."""

    async def scenario(machine: Machine) -> None:
        await machine.settle(web())
        before = up(machine)
        await machine.service.commanding.restart(KEY, FIRST)
        await machine.look()
        for name in machine.engine.images:
            if name not in before:
                machine.engine.images[name] = "web:exits"
        [said] = await machine.settle(web())
        standing = machine.service.commanding.standing(KEY, FIRST)
        assert (standing.state, standing.reason) == ("failed", "Exited")
        assert standing.message.endswith("The former instance runs on.")
        assert (said.state, said.reason) == ("Applied", "Running")
        assert up(machine) == before
        await machine.service.commanding.restart(KEY, FIRST)
        await machine.settle(web())
        assert up(machine) == before, "the same command does not try again"

    run(scenario, tmp_path)


def test_an_agent_that_starts_anew_restarts_nothing_again(tmp_path: Path) -> None:
    """What was restarted is known after the agent was, so its instance is the one that is wanted."""

    async def scenario(machine: Machine) -> None:
        await machine.settle(web())
        await machine.service.commanding.restart(KEY, FIRST)
        await machine.settle(web())
        before = up(machine)
        machine.service = machine.new_service(tmp_path)
        machine.service._memories.update(machine.service._files.load(0.0))
        machine.service.restarts.load()
        await machine.settle(web())
        await machine.service.commanding.restart(KEY, FIRST)
        [said] = await machine.settle(web())
        assert (said.reason, up(machine)) == ("Running", before)

    run(scenario, tmp_path)


def test_another_version_is_not_restarted(tmp_path: Path) -> None:
    """A restart is of the version that it was asked for; a commit in between takes its place and says so."""

    async def scenario(machine: Machine) -> None:
        await machine.settle(web())
        await machine.service.commanding.restart(KEY, FIRST)
        await machine.settle(web("other:good"))
        assert machine.images() == ["other:good"]
        assert machine.service.commanding.standing(KEY, FIRST).reason == "Superseded"

    run(scenario, tmp_path)


def test_what_is_not_wanted_here_is_not_found(tmp_path: Path) -> None:
    """There is nothing to restart, to look at or to run a program in."""

    async def scenario(machine: Machine) -> None:
        await machine.settle(web())
        with pytest.raises(DriverError, match="not to run on this agent"):
            await machine.service.commanding.restart(Key("shop", "other"), FIRST)
        assert machine.service.commanding.instance(Key("shop", "other")) is None
        found = machine.service.commanding.instance(KEY)
        assert found is not None
        assert found[1].id == up(machine)[0]

    run(scenario, tmp_path)
