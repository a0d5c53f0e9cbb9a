"""Answers that go on while agents work: who is told what, and what ends with whom."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from starlette.responses import StreamingResponse

from reconciler.agents.commands import Asked, said_of
from reconciler.errors import Refused
from reconciler.pki.authenticator import Identity
from reconciler.web.command_lines import CommandLines
from schemas.session import Command, CommandOutput, CommandStop
from tests.unit.agents.test_commands import Plane

CALLER = Identity("ci", "ci", frozenset({"operate"}), "t1")


class Door:
    """Says whether callers are still let in."""

    def __init__(self) -> None:
        self.is_good = True

    def is_still_good(self, identity: Identity, now: float) -> bool:
        return self.is_good


class Answers:
    def __init__(self) -> None:
        self.plane = Plane()
        self.door = Door()
        self.lines = CommandLines(self.plane.commands, self.door, lambda: 0.0)  # type: ignore[arg-type]

    async def ask(self, *agents: str, one_by_one: bool = False) -> AsyncIterator[str]:
        asked = [Asked(one, "logs", "Deployment/shop/web", said_of("logs", one), 60.0, {}) for one in agents]
        answer = await self.lines.answer(asked, CALLER, one_by_one=one_by_one)
        assert isinstance(answer, StreamingResponse)
        found: Any = answer.body_iterator
        return found  # type: ignore[no-any-return]

    @property
    def sent(self) -> list[tuple[str, str]]:
        """Agent and id of each command that was sent."""
        return [(name, one.id) for name, one in self.plane.told if isinstance(one, Command)]

    @property
    def stopped(self) -> list[str]:
        return [one.id for _, one in self.plane.told if isinstance(one, CommandStop)]

    def says(self, number: int, text: str = "", **more: Any) -> None:
        """Let the agent of a command that was sent say something."""
        agent, name = self.sent[number]
        self.plane.commands.said(agent, CommandOutput(id=name, text=text, **more))


async def line(lines: AsyncIterator[str]) -> dict[str, Any]:
    """Return the next line that is not empty."""
    async for one in lines:
        if one.strip():
            found: dict[str, Any] = json.loads(one)
            return found
    pytest.fail("the answer is over")


def run(scenario: Callable[[Answers], Awaitable[None]]) -> None:
    async def whole() -> None:
        await scenario(Answers())

    asyncio.run(whole())


def test_agents_at_once_are_named_first_and_come_as_they_speak() -> None:
    """One that is away has its end at once, and the others go on without it."""

    async def scenario(answers: Answers) -> None:
        lines = await answers.ask("vps-1", "vps-9", "vps-2")
        begun = [await line(lines) for _ in range(3)]
        assert [(one["agent"], one.get("ended", False)) for one in begun] == [
            ("vps-1", False), ("vps-2", False), ("vps-9", True),
        ]  # fmt: skip
        answers.says(1, "two\n")
        assert (await line(lines))["text"] == "two\n"
        answers.says(0, last=True)
        answers.says(1, last=True, reason="TimedOut", message="It took too long.")
        last = [await line(lines), await line(lines)]
        assert sorted((one["agent"], one.get("reason", "")) for one in last) == [("vps-1", ""), ("vps-2", "TimedOut")]
        assert [one async for one in lines] == []

    run(scenario)


def test_where_nobody_can_be_asked_the_answer_is_a_refusal() -> None:
    """With no agent there the caller gets a status, and not an answer that ends badly."""

    async def scenario(answers: Answers) -> None:
        for one_by_one in (True, False):
            with pytest.raises(Refused) as refused:
                await answers.ask("vps-8", "vps-9", one_by_one=one_by_one)
            assert refused.value.code == "agent-away"

    run(scenario)


@pytest.mark.parametrize(("reason", "goes_on"), [("", True), ("Exited", False)])
def test_one_after_the_other_until_one_fails(reason: str, goes_on: bool) -> None:
    """The next agent begins when the one before has ended well, and not at all when it did not."""

    async def scenario(answers: Answers) -> None:
        lines = await answers.ask("vps-1", "vps-2", one_by_one=True)
        assert (await line(lines))["agent"] == "vps-1"
        assert [agent for agent, _ in answers.sent] == ["vps-1"]
        answers.says(0, last=True, reason=reason)
        assert (await line(lines))["ended"]
        if goes_on:
            assert (await line(lines))["agent"] == "vps-2"
            answers.says(1, last=True)
            assert (await line(lines))["ended"]
        assert [one async for one in lines] == []
        assert len(answers.sent) == (2 if goes_on else 1)

    run(scenario)


def test_what_is_under_way_ends_with_its_reader() -> None:
    """When the connection breaks every command is stopped on its agent."""

    async def scenario(answers: Answers) -> None:
        lines: Any = await answers.ask("vps-1", "vps-2")
        await line(lines)
        await lines.aclose()
        assert sorted(answers.stopped) == sorted(name for _, name in answers.sent)
        assert answers.plane.commands.running == 0

    run(scenario)


def test_what_is_under_way_ends_with_the_callers_token() -> None:
    """The reader hears why, and the agents are told to stop."""

    async def scenario(answers: Answers) -> None:
        lines = await answers.ask("vps-1")
        await line(lines)
        answers.door.is_good = False
        answers.says(0, "still\n")
        assert (await line(lines))["text"] == "still\n"
        assert (await line(lines))["reason"] == "TokenEnded"
        assert [one async for one in lines] == []
        assert len(answers.stopped) == 1

    run(scenario)
