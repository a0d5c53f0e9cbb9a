"""What a handler of commands is given, and how it says that something went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Literal

from schemas.session import Command, CommandOutput

Stream = Literal["stdout", "stderr"]
PIECE: Final = 32 * 1024
"""Characters of one piece."""
HIGH_WATER: Final = 256 * 1024
"""Characters that may wait to be sent before whoever writes more has to wait, or loses it."""
_LOOK_SECONDS: Final = 0.05


class CommandFailed(Exception):
    """The command ends here. ``reason`` is a CamelCase word, the text a sentence without secrets."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """Cut a text, behind the end of a line where there is one in the later half of a piece."""
    begin = 0
    while begin < len(text):
        end = begin + size
        if end < len(text):
            line = text.rfind("\n", begin + size // 2, end)
            end = line + 1 if line >= 0 else end
        yield text[begin:end]
        begin = end


class Output:
    """Where one command writes. ``say`` sends a piece soon; ``waiting`` says how many characters are not sent yet."""

    def __init__(self, command: str, say: Callable[[CommandOutput], None], waiting: Callable[[str], int]) -> None:
        self._command = command
        self._say = say
        self._waiting = waiting
        self._dropped = 0

    async def write(self, text: str, stream: Stream = "stdout") -> None:
        """Write text, as fast as it can be sent: for what can wait."""
        for piece in pieces(text):
            while self._is_full():  # noqa: ASYNC110  a session has no event for it
                await asyncio.sleep(_LOOK_SECONDS)
            self._say_piece(piece, stream)

    def offer(self, line: str) -> None:
        """Write a line, or count it as left out where too much waits: for what goes on meanwhile."""
        if self._is_full():
            self._dropped += 1
            return
        for piece in pieces(f"{line}\n"):
            self._say_piece(piece, "stdout")

    def end(self, *, exit_code: int | None = None, reason: str = "", message: str = "") -> None:
        """Say how it ended; nothing may follow."""
        self._say(
            CommandOutput(
                id=self._command,
                dropped=self._dropped,
                last=True,
                exit_code=exit_code,
                reason=reason[:64],
                message=message[:2000],
            )
        )

    def _say_piece(self, text: str, stream: Stream) -> None:
        dropped, self._dropped = self._dropped, 0
        self._say(CommandOutput(id=self._command, text=text, stream=stream, dropped=dropped))

    def _is_full(self) -> bool:
        return self._waiting(self._command) >= HIGH_WATER


Handler = Callable[[Command, Output], Awaitable[int | None]]
"""Does it, and returns the exit code of a program. Cancelled when nobody waits any more, or the time is over.

Raises CommandFailed.
"""
