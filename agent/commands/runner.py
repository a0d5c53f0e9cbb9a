"""Runs the commands that come over the session: each once, for a limited time, and only while somebody waits.

1. A command whose id was seen before is left alone: messages may be doubled, work must not be.
2. Its action is looked up; an unknown one, and one too many, ends at once with a sentence.
3. Its handler runs in a task of its own, until it returns, its time is over, it is stopped, or the session ends.
4. The last piece of its output says how it ended. Where the session is over, nobody is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Final

from agent.commands.handling import CommandFailed, Handler, Output
from agent.deployments.driver import DriverError
from agent.services import Line
from agent.talk import Say
from schemas.session import COMMANDS, Command, CommandOutput, CommandStop
from schemas.text import visible

log = logging.getLogger(__name__)

AT_ONCE: Final = 8
"""Commands under way; those that only wait cost next to nothing, so this is for what programs may cost."""
REMEMBERED: Final = 1024
"""Ids of commands that are known to have been here."""


class Commands:
    """An :class:`agent.services.Extension`. ``handlers``: by action."""

    feature: str = COMMANDS

    def __init__(self, handlers: Mapping[str, Handler], *, at_once: int = AT_ONCE) -> None:
        self._handlers = dict(handlers)
        self._at_once = at_once
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._line: Line | None = None

    def register(self, handlers: Mapping[str, Handler]) -> None:
        """Add actions."""
        assert not self._handlers.keys() & handlers.keys(), "an action has one handler"
        self._handlers.update(handlers)

    @property
    def running(self) -> int:
        return len(self._tasks)

    # --- the session ----------------------------------------------------------------------------------------------

    def offered(self, offered: bool, /) -> None:
        """Nothing depends on it: commands come or do not."""

    def begun(self, line: Line, /) -> None:
        """Commands may come."""
        self._line = line

    def ended(self) -> None:
        """Nobody waits for anything any more."""
        self._line = None
        for task in self._tasks.values():
            task.cancel()

    def heard(self, what: object, /) -> None:
        """Begin a command, or end one."""
        if isinstance(what, Command):
            self._begin(what)
        elif isinstance(what, CommandStop) and (task := self._tasks.get(what.id)) is not None:
            task.cancel()

    async def close(self) -> None:
        """End everything and wait for it."""
        self.ended()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # --- one command ----------------------------------------------------------------------------------------------

    def _begin(self, command: Command) -> None:
        line = self._line
        if command.id in self._seen or line is None:
            return
        self._seen[command.id] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        output = Output(command.id, partial(self._speak, line), line.waiting)
        handler = self._handlers.get(command.action)
        if handler is None:
            text = f'This version of the agent knows no "{command.action}"; upgrade the agent.'
            output.end(reason="UnknownAction", message=text)
        elif len(self._tasks) >= self._at_once:
            output.end(reason="TooManyCommands", message=f"{self._at_once} commands are under way on this agent.")
        else:
            log.info("command %s: %s of %s", command.id, command.action, command.item)
            task = asyncio.create_task(self._run(command, handler, output), name=f"command-{command.id}")
            self._tasks[command.id] = task
            task.add_done_callback(lambda _: self._tasks.pop(command.id, None))

    def _speak(self, line: Line, piece: CommandOutput) -> None:
        if self._line is line:
            line.say(Say(piece))

    async def _run(self, command: Command, handler: Handler, output: Output) -> None:
        limit = asyncio.timeout(command.seconds)
        try:
            async with limit:
                code = await handler(command, output)
        except asyncio.CancelledError:
            output.end(reason="Stopped", message="It was stopped.")
            raise
        except (CommandFailed, DriverError) as error:
            output.end(reason=error.reason, message=visible(error.message))
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                output.end(reason="TimedOut", message=f"It took longer than {command.seconds:g} s and was ended.")
                return
            log.exception("command %s", command.id)
            text = f"The agent failed with {type(error).__name__}; its log says more."
            output.end(reason="Failed", message=text)
        else:
            output.end(exit_code=code)
