"""Commands as the control plane sees them: written down first, bounded, and always with an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from reconciler.agents.commands import AT_ONCE, GRACE_SECONDS, HELD, Asked, Commands, Running, said_of
from reconciler.errors import Refused, Transient
from reconciler.store.protocols import Event
from schemas.session import Command, CommandOutput, CommandStop

WHO = "operator:local"


class Events:
    """A timeline in memory; ``full``: nothing can be written."""

    def __init__(self) -> None:
        self.written: list[Event] = []
        self.full = False

    async def append(self, event: Event) -> Event:
        if self.full:
            raise Transient("the disk is full.", reason="DiskFull")
        self.written.append(event)
        return event

    async def events(self, **_: Any) -> Sequence[Event]:
        return self.written


class Plane:
    """A control plane with agents that take what they are told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.events = Events()
        self.connected = frozenset({"vps-1", "vps-2"})
        self.deaf = False
        self.told: list[tuple[str, Command | CommandStop]] = []
        self.commands = Commands(self, self.events, clock=lambda: self.now, monotonic=lambda: self.now)

    def tell(self, name: str, message: Command | CommandStop) -> bool:
        if self.deaf or name not in self.connected:
            return False
        self.told.append((name, message))
        return True

    async def begin(self, agent: str = "vps-1", **more: Any) -> Running:
        found: dict[str, Any] = {"action": "logs", "seconds": 60.0, "arguments": {}, **more}
        asked = Asked(agent=agent, item="Deployment/shop/web", said=said_of(found["action"], agent), **found)
        return await self.commands.begin(asked, actor=WHO)

    async def settle(self) -> list[str]:
        """Let the task run until nothing is left to write; return what the timeline says."""
        task = asyncio.create_task(self.commands.run())
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return [event.message.rpartition(" (command ")[0] for event in self.events.written]


def run(scenario: Callable[[Plane], Awaitable[None]]) -> None:
    async def whole() -> None:
        await scenario(Plane())

    asyncio.run(whole())


def out(running: Running, text: str = "", **more: Any) -> CommandOutput:
    return CommandOutput(id=running.id, text=text, **more)


def test_who_asked_for_what_is_written_before_it_is_sent() -> None:
    """Where the timeline cannot be written nothing is sent, and nothing is under way."""

    async def scenario(plane: Plane) -> None:
        plane.events.full = True
        with pytest.raises(Transient):
            await plane.begin()
        assert (plane.told, plane.commands.running) == ([], 0)
        plane.events.full = False
        running = await plane.begin()
        [(name, sent)] = plane.told
        assert isinstance(sent, Command)
        assert (name, sent.id, sent.seconds) == ("vps-1", running.id, 60.0)
        [event] = plane.events.written
        assert (event.type, event.subject, event.actor) == ("CommandBegun", "Deployment/shop/web", WHO)
        assert event.message == f"{WHO} began logs on vps-1. (command {running.id})"

    run(scenario)


def test_what_an_agent_says_comes_in_order_and_then_the_end() -> None:
    """The reader gets each piece, the last one with the exit code, and then nothing."""

    async def scenario(plane: Plane) -> None:
        running = await plane.begin(action="exec", words=("sh",))
        for piece in (out(running, "a"), out(running, "b", stream="stderr"), out(running, last=True, exit_code=3)):
            plane.commands.said("vps-1", piece)
        found = [await running.next(1) for _ in range(4)]
        assert [one.text for one in found if one is not None] == ["a", "b", ""]
        assert running.ended is not None
        assert (running.ended.exit_code, running.is_read, found[3]) == (3, True, None)
        assert (await plane.settle())[-1] == "exec on vps-1 ended with exit code 3 after 0.0 s."

    run(scenario)


def test_another_agent_says_nothing_about_it() -> None:
    """Output under a foreign id, or after the end, counts for nothing."""

    async def scenario(plane: Plane) -> None:
        running = await plane.begin()
        plane.commands.said("vps-2", out(running, "forged"))
        plane.commands.said("vps-2", out(running, last=True))
        assert running.ended is None
        plane.commands.said("vps-1", out(running, last=True))
        plane.commands.said("vps-1", out(running, "late"))
        running.put(out(running, "later"))
        assert [await running.next(0.01) for _ in range(2)] == [out(running, last=True), None]

    run(scenario)


def test_nobody_who_reads_slowly_fills_the_memory() -> None:
    """Beyond a bound the newest is left out, and the next piece that fits says how many lines."""

    async def scenario(plane: Plane) -> None:
        running = await plane.begin()
        piece = "x" * 32_767 + "\n"
        for _ in range(40):
            plane.commands.said("vps-1", out(running, piece))
        held = []
        while (one := await running.next(0.001)) is not None:
            held.append(one)
        assert sum(len(one.text) for one in held) <= HELD
        plane.commands.said("vps-1", out(running, "there\n"))
        after = await running.next(1)
        assert after is not None
        assert (after.text, after.dropped) == ("there\n", 40 - len(held))

    run(scenario)


@pytest.mark.parametrize("how", ["stop", "gone", "late", "end"])
def test_every_command_ends(how: str) -> None:
    """Nobody reads, the agent goes, time is over, or the caller may no more: the reader and the timeline hear why."""

    async def scenario(plane: Plane) -> None:
        running = await plane.begin(seconds=5.0)
        if how == "stop":
            plane.commands.stop(running)
        elif how == "gone":
            plane.commands.gone("vps-1")
        elif how == "end":
            plane.commands.end(running, "TokenEnded", "The token has ended.")
        plane.now += 5.0 + GRACE_SECONDS
        told = await plane.settle()
        reason = {"stop": "Stopped", "gone": "AgentGone", "late": "TimedOut", "end": "TokenEnded"}[how]
        assert running.ended is not None
        assert (running.ended.reason, plane.commands.running) == (reason, 0)
        assert told[-1].startswith(
            "logs on vps-1 was stopped" if how == "stop" else f"logs on vps-1 ended with {reason}"
        )
        stops = [message for _, message in plane.told if isinstance(message, CommandStop)]
        assert len(stops) == (0 if how == "gone" else 1)
        plane.commands.stop(running)
        assert len(plane.told) == 1 + len(stops), "once is enough"

    run(scenario)


def test_what_cannot_be_written_yet_is_written_later() -> None:
    """A full disk loses no end of a command."""

    async def scenario(plane: Plane) -> None:
        running = await plane.begin()
        plane.events.full = True
        plane.commands.said("vps-1", out(running, last=True))
        assert len(await plane.settle()) == 1
        plane.events.full = False
        assert (await plane.settle())[-1] == "logs on vps-1 ended well after 0.0 s."

    run(scenario)


def test_agents_that_are_away_or_too_old_are_refused() -> None:
    """One that is not connected is refused at once; one that knows no commands after it was asked. Nothing stays."""

    async def scenario(plane: Plane) -> None:
        with pytest.raises(Refused, match="not connected") as away:
            await plane.begin("vps-9")
        assert (away.value.status, away.value.code, plane.events.written) == (503, "agent-away", [])
        plane.deaf = True
        with pytest.raises(Refused, match="knows no commands"):
            await plane.begin()
        assert plane.commands.running == 0
        assert (await plane.settle())[-1].startswith("logs on vps-1 ended with AgentAway")

    run(scenario)


def test_no_more_than_so_many_on_one_agent() -> None:
    """One too many is refused until another has ended; other agents have room."""

    async def scenario(plane: Plane) -> None:
        running = [await plane.begin() for _ in range(AT_ONCE)]
        with pytest.raises(Refused) as refused:
            await plane.begin()
        assert (refused.value.status, refused.value.code) == (429, "too-many-commands")
        await plane.begin("vps-2")
        plane.commands.stop(running[0])
        await plane.begin()

    run(scenario)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("mysql", "-phunter2"), "exec of mysql and an argument on vps-1"),
        (("sh", "-c", "echo hunter2"), "exec of sh and 2 arguments on vps-1"),
        (("ls",), "exec of ls on vps-1"),
    ],
)
def test_arguments_are_not_written_down(words: tuple[str, ...], said: str) -> None:
    """Of a program its name and the number of its arguments are told: they may hold passwords."""
    assert said_of("exec", "vps-1", words) == said
