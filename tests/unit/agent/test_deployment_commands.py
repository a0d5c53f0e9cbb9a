"""Commands about what a deployment runs, and what the fleet lets people do there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent.commands.allowance import Allowance
from agent.commands.deployments import DeploymentCommands
from agent.commands.handling import CommandFailed, Output
from agent.services import RecordingService
from schemas.session import EXEC, Command, CommandOutput, Item, digest_of
from tests.unit.agent.test_deployment_service import Machine, web

ONE = "1" * 32


def command(action: str, *words: str, item: str = "Deployment/shop/web", **arguments: str) -> Command:
    return Command(id=ONE, action=action, item=item, arguments=arguments, words=words, seconds=60)


def own_item(**spec: Any) -> Item:
    return Item(id="Agent//vps-1", kind="Agent", digest=digest_of(spec), spec=spec)


class Asked:
    """A machine on which the deployment runs, and what its commands say."""

    def __init__(self, data: Path, *, may_execute: bool = True) -> None:
        self.machine = Machine(data)
        self.said: list[CommandOutput] = []
        self.output = Output(ONE, self.said.append, lambda _: 0)
        self.commands = DeploymentCommands(self.machine.service.commanding, lambda _team: may_execute)

    @property
    def text(self) -> str:
        return "".join(one.text for one in self.said)


def run(scenario: Callable[[Asked], Coroutine[Any, Any, None]], data: Path, **more: Any) -> None:
    async def whole() -> None:
        asked = Asked(data, **more)
        await asked.machine.settle(web())
        await scenario(asked)

    asyncio.run(whole())


def test_logs_end_with_what_there_is(tmp_path: Path) -> None:
    """Without following, the last lines are told and the command is over."""

    async def scenario(asked: Asked) -> None:
        asked.machine.driver.lines = "one\ntwo\nthree"
        await asked.commands.logs(command("logs", tail="2"), asked.output)
        assert asked.text == "two\nthree\n"

    run(scenario, tmp_path)


def test_following_tells_what_comes(tmp_path: Path) -> None:
    """New lines follow those of before, until the command is ended."""

    async def scenario(asked: Asked) -> None:
        asked.machine.driver.lines = "before"
        asked.machine.driver.written.put_nowait("after")
        task = asyncio.create_task(asked.commands.logs(command("logs", follow="true"), asked.output))
        while "after" not in asked.text:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert asked.text == "before\nafter\n"

    run(scenario, tmp_path)


def test_a_program_is_ended_with_its_command(tmp_path: Path) -> None:
    """Output and exit code are the program's; whoever leaves ends it."""

    async def scenario(asked: Asked) -> None:
        assert await asked.commands.execute(command("exec", "fail"), asked.output) == 3
        assert [(one.text, one.stream) for one in asked.said] == [("fail\n", "stdout"), ("it failed\n", "stderr")]
        task = asyncio.create_task(asked.commands.execute(command("exec", "sleep", "9"), asked.output))
        while "sleep" not in asked.text:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert asked.machine.driver.executed == [("fail",), ("sleep", "9")]

    run(scenario, tmp_path)


@pytest.mark.parametrize(
    ("asked_for", "may_execute", "reason"),
    [
        (command("exec", "ls"), False, "NotAllowed"),
        (command("exec"), True, "InvalidCommand"),
        (command("exec", ""), True, "InvalidCommand"),
        (command("exec", "ls", item="Deployment/shop/other"), True, "NotFound"),
        (command("exec", "ls", item="Agent//vps-1"), True, "NotFound"),
        (command("exec", "ls", item="Deployment/shop"), True, "NotFound"),
    ],
)
def test_what_may_not_be_run_is_refused_here_too(
    asked_for: Command, may_execute: bool, reason: str, tmp_path: Path
) -> None:
    """Whatever the control plane let through, the agent runs no program that its document does not allow."""

    async def scenario(asked: Asked) -> None:
        with pytest.raises(CommandFailed) as failed:
            await asked.commands.execute(asked_for, asked.output)
        assert failed.value.reason == reason
        assert asked.machine.driver.executed == []

    run(scenario, tmp_path, may_execute=may_execute)


def test_lines_are_a_number(tmp_path: Path) -> None:
    """Anything else for the number of lines ends the command."""

    async def scenario(asked: Asked) -> None:
        for tail in ("-1", "many", "1e3", "", "\u0661"):
            with pytest.raises(CommandFailed, match="no number"):
                await asked.commands.logs(command("logs", tail=tail), asked.output)

    run(scenario, tmp_path)


def test_the_agents_own_item_says_who_may_run_programs() -> None:
    """The newest document counts; without one, without the member and with nonsense nobody may."""

    async def scenario() -> None:
        allowance = Allowance(RecordingService(frozenset({"Agent"})))
        assert not allowance("shop")
        for spec, may in (
            ({"labels": {}}, False),
            ({EXEC: ["shop"]}, True),
            ({EXEC: "shop"}, False),
            ({EXEC: ["data", 1]}, False),
            ({EXEC: {"shop": True}}, False),
        ):
            [result] = await allowance.apply((own_item(**spec),))
            assert (result.state, allowance("shop")) == ("Applied", may), spec

    asyncio.run(scenario())
