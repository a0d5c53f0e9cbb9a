"""Answers that go on while agents work: one JSON object a line, as commands say it (``schemas.deployments_api``).

Who reads too slowly loses what is newer, and is told how much; who reads nothing at all is cut by the server. When the
connection ends, or the caller's token does, the commands end on their agents.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from starlette.responses import Response, StreamingResponse

from reconciler.agents.commands import Asked, Commands, Running
from reconciler.errors import CloudLunacyError, Refused
from reconciler.pki.authenticator import Authenticator, Identity
from schemas.deployments_api import LINES, CommandLine
from schemas.session import CommandOutput

LOOK_SECONDS: Final = 5.0
"""Between two looks at whether the caller is still let in; an empty line is sent where nothing else was."""


class CommandLines:
    """Begins commands for a caller, and answers with what they say."""

    def __init__(self, commands: Commands, authenticator: Authenticator, clock: Callable[[], float]) -> None:
        self._commands = commands
        self._authenticator = authenticator
        self._clock = clock

    async def answer(self, asked: Sequence[Asked], caller: Identity, *, one_by_one: bool = False) -> Response:
        """Begin commands, at once or one after the other, of which each has to end well before the next begins.

        Raises:
            Refused: when the first cannot be begun, or where they are to begin at once, none can.
        """
        lines = self._in_turn(asked, caller) if one_by_one else self._at_once(asked, caller)
        # the first line is waited for: what is refused is answered as a problem, with its status
        first = await anext(lines)
        return StreamingResponse(_from(first, lines), media_type=LINES, headers={"Cache-Control": "no-store"})

    async def _at_once(self, asked: Sequence[Asked], caller: Identity) -> AsyncIterator[str]:
        begun: list[Running] = []
        refusals: list[tuple[Asked, CloudLunacyError]] = []
        try:
            for one in asked:
                try:
                    begun.append(await self._commands.begin(one, actor=str(caller)))
                except Refused as refused:
                    refusals.append((one, refused))
            if not begun:
                raise refusals[0][1]
            for running in begun:
                yield _begun(running)
            for one, error in refusals:
                yield _refusal(one, error)
            async for line in self._lines(begun, caller):
                yield line
        finally:
            for running in begun:
                self._commands.stop(running)

    async def _in_turn(self, asked: Sequence[Asked], caller: Identity) -> AsyncIterator[str]:
        for number, one in enumerate(asked):
            try:
                running = await self._commands.begin(one, actor=str(caller))
            except CloudLunacyError as error:
                if number == 0:
                    raise
                yield _refusal(one, error)
                return
            try:
                yield _begun(running)
                async for line in self._lines([running], caller):
                    yield line
            finally:
                self._commands.stop(running)
            if running.ended is None or running.ended.reason:
                return

    async def _lines(self, begun: Sequence[Running], caller: Identity) -> AsyncIterator[str]:
        """Say what commands say, until all have ended."""
        reading = {_read(one): one for one in begun}
        try:
            while reading:
                done, _ = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    running, piece = reading.pop(task), task.result()
                    yield "\n" if piece is None else _line(running, piece)
                    if not running.is_read:
                        reading[_read(running)] = running
                if not self._authenticator.is_still_good(caller, self._clock()):
                    for running in begun:
                        self._commands.end(running, "TokenEnded", "The token that it was asked with has ended.")
        finally:
            for task in reading:
                task.cancel()


def _read(running: Running) -> asyncio.Task[CommandOutput | None]:
    return asyncio.create_task(running.next(LOOK_SECONDS), name=f"read {running.id}")


async def _from(first: str, lines: AsyncIterator[str]) -> AsyncIterator[str]:
    try:
        yield first
        async for line in lines:
            yield line
    finally:
        await lines.aclose()  # type: ignore[attr-defined]


def _begun(running: Running) -> str:
    return _written(CommandLine(agent=running.asked.agent, command=running.id))


def _line(running: Running, piece: CommandOutput) -> str:
    return _written(
        CommandLine(
            agent=running.asked.agent,
            command=running.id,
            text=piece.text,
            stream=piece.stream,
            dropped=piece.dropped,
            ended=piece.last,
            exit_code=piece.exit_code,
            reason=piece.reason,
            message=piece.message,
        )
    )


def _refusal(asked: Asked, error: CloudLunacyError) -> str:
    return _written(CommandLine(agent=asked.agent, ended=True, reason="Refused", message=str(error)))


def _written(line: CommandLine) -> str:
    return f"{line.model_dump_json(by_alias=True, exclude_defaults=True)}\n"
