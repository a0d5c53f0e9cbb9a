"""Commands on an agent: each runs once, in time, and says how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from agent.commands.handling import HIGH_WATER, PIECE, CommandFailed, Handler, Output
from agent.commands.runner import Commands
from agent.deployments.driver import DriverError
from agent.services import Line
from agent.session import Event
from agent.talk import Say
from schemas.session import Command, CommandOutput, CommandStop
from tests.support.waiting import eventually

ONE = "1" * 32


def command(action: str = "work", *, name: str = ONE, seconds: float = 30.0) -> Command:
    return Command(id=name, action=action, item="Deployment/shop/web", seconds=seconds)


class Session:
    """What a command says arrives here; ``full``: nothing is sent on."""

    def __init__(self, handlers: dict[str, Handler], *, at_once: int = 8) -> None:
        self.said: list[CommandOutput] = []
        self.full = False
        self.commands = Commands(handlers, at_once=at_once)
        self.connect()

    def connect(self) -> None:
        self.commands.begun(Line(self._hear, lambda _: HIGH_WATER if self.full else 0))

    def _hear(self, event: Event) -> None:
        assert isinstance(event, Say)
        assert isinstance(event.message, CommandOutput)
        self.said.append(event.message)

    @property
    def ends(self) -> list[tuple[str, int | None]]:
        return [(one.reason, one.exit_code) for one in self.said if one.last]

    async def ended(self, count: int = 1) -> None:
        await until(lambda: len(self.ends) >= count, "the end of a command")


async def until(condition: Callable[[], bool], what: str) -> None:
    async def ask() -> bool:
        return condition()

    _: bool = await eventually(ask, what=what)


async def forever(_: Command, output: Output) -> None:
    await output.write("begun\n")
    await asyncio.Event().wait()


async def good(_: Command, output: Output) -> int:
    await output.write("all ")
    await output.write("well\n", "stderr")
    return 0


async def failing(_: Command, _output: Output) -> None:
    raise CommandFailed("NotFound", "There is none.")


async def unlucky(_: Command, _output: Output) -> None:
    raise DriverError("EngineUnavailable", "It is away.", engine=True)


async def broken(_: Command, _output: Output) -> None:
    raise KeyError("a secret word")


async def impatient(_: Command, _output: Output) -> None:
    raise TimeoutError


HANDLERS: dict[str, Handler] = {
    "work": good,
    "wait": forever,
    "fail": failing,
    "unlucky": unlucky,
    "broken": broken,
    "impatient": impatient,
}


def test_what_it_writes_comes_in_order_and_its_end_last() -> None:
    """Text of both streams comes as it was written, then the exit code."""

    async def scenario() -> None:
        session = Session(HANDLERS)
        session.commands.heard(command())
        await session.ended()
        assert [(one.text, one.stream) for one in session.said[:-1]] == [("all ", "stdout"), ("well\n", "stderr")]
        assert session.ends == [("", 0)]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("action", "reason"),
    [("fail", "NotFound"), ("unlucky", "EngineUnavailable"), ("broken", "Failed"), ("impatient", "Failed"),
     ("dance", "UnknownAction")],
)  # fmt: skip
def test_each_end_has_its_reason(action: str, reason: str) -> None:
    """A refusal, a driver's error, a bug and an unknown action each end the command, with a sentence for people."""

    async def scenario() -> None:
        session = Session(HANDLERS)
        session.commands.heard(command(action))
        await session.ended()
        assert session.ends == [(reason, None)]
        assert session.said[-1].message.endswith((".", "more."))
        assert "secret" not in session.said[-1].message

    asyncio.run(scenario())


def test_it_ends_when_its_time_is_over() -> None:
    """After its seconds a command is ended and says so."""

    async def scenario() -> None:
        session = Session(HANDLERS)
        session.commands.heard(command("wait", seconds=0.05))
        await session.ended()
        assert session.ends == [("TimedOut", None)]
        assert session.commands.running == 0

    asyncio.run(scenario())


def test_it_ends_when_nobody_waits_any_more() -> None:
    """A stop ends the work, also when it comes twice or for what is not there."""

    async def scenario() -> None:
        session = Session(HANDLERS)
        session.commands.heard(command("wait"))
        await until(lambda: bool(session.said), "a beginning")
        for name in (ONE, ONE, "2" * 32):
            session.commands.heard(CommandStop(id=name))
        await session.ended()
        assert session.ends == [("Stopped", None)]

    asyncio.run(scenario())


def test_a_doubled_command_runs_once() -> None:
    """The same id does nothing while it runs, after it ended, and in a later session."""

    async def scenario() -> None:
        begun = 0

        async def count(_: Command, _output: Output) -> None:
            nonlocal begun
            begun += 1

        session = Session({"work": count})
        session.commands.heard(command())
        session.commands.heard(command())
        await session.ended()
        session.commands.ended()
        session.connect()
        session.commands.heard(command())
        await asyncio.sleep(0)
        assert (begun, session.commands.running) == (1, 0)

    asyncio.run(scenario())


def test_the_end_of_the_session_ends_what_runs_and_tells_nobody() -> None:
    """Work whose person is gone ends, and nothing is said into the next session."""

    async def scenario() -> None:
        session = Session(HANDLERS)
        session.commands.heard(command("wait"))
        await until(lambda: bool(session.said), "a beginning")
        session.commands.ended()
        session.connect()
        await until(lambda: not session.commands.running, "the end of the work")
        assert session.ends == []

    asyncio.run(scenario())


def test_no_more_than_so_many_at_once() -> None:
    """One command too many is told so and does not wait."""

    async def scenario() -> None:
        session = Session(HANDLERS, at_once=1)
        session.commands.heard(command("wait"))
        session.commands.heard(command("work", name="2" * 32))
        assert session.ends == [("TooManyCommands", None)]
        await session.commands.close()

    asyncio.run(scenario())


def test_what_can_wait_waits_and_what_cannot_is_counted() -> None:
    """While nothing is sent on, writing waits; lines of what goes on are left out, and the next piece says how many."""

    async def scenario() -> None:
        said: list[CommandOutput] = []
        full = True
        output = Output(ONE, said.append, lambda _: HIGH_WATER if full else 0)
        writing = asyncio.create_task(output.write("patient\n"))
        output.offer("lost")
        output.offer("lost too")
        await asyncio.sleep(0.1)
        assert said == []
        full = False
        await writing
        output.offer("there")
        output.end()
        assert [(one.text, one.dropped) for one in said] == [("patient\n", 2), ("there\n", 0), ("", 0)]

    asyncio.run(scenario())


def test_a_long_text_is_cut_into_pieces() -> None:
    """No piece is longer than a message takes, and together they are the text."""

    async def scenario() -> None:
        said: list[CommandOutput] = []
        text = "x" * 50_000 + "\n" + "é\u2028" * 40_000
        await Output(ONE, said.append, lambda _: 0).write(text)
        assert "".join(one.text for one in said) == text
        assert max(len(one.text) for one in said) <= PIECE

    asyncio.run(scenario())
