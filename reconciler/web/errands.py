"""Commands that go on after the answer that began them: what a person starts by a button, and looks at later.

Somebody has to read what a command says, or its agent ends it. An errand is that reader: it goes on when the browser
leaves, ends when the command does, and remembers the last of what was said. How it ended is in the timeline as well.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from reconciler.agents.commands import Asked, Commands, Running
from reconciler.errors import CloudLunacyError, Refused
from reconciler.observability.logs import get_logger
from schemas.objects import ObjectKey

log = get_logger(__name__)

REMEMBERED: Final = 500
"""Errands; the oldest that ended is forgotten first."""
CHARACTERS: Final = 8000
"""Of what one said; the last count."""
LOOK_SECONDS: Final = 5.0


@dataclass(slots=True)
class Errand:
    """What is done about a deployment. Times are POSIX seconds."""

    key: ObjectKey
    action: str
    actor: str
    began: float
    on: str
    """The agent where it is now."""
    ended: float | None = None
    reason: str = ""
    """Why it did not end well; empty where it did, and while it goes on."""
    message: str = ""
    text: str = ""

    @property
    def state(self) -> str:
        """Say it in a word."""
        if self.ended is None:
            return "Progressing"
        return "Failed" if self.reason else "Done"

    def take(self, text: str) -> None:
        """Remember the last of it."""
        self.text = (self.text + text)[-CHARACTERS:]


@dataclass(slots=True)
class _Known:
    errands: OrderedDict[tuple[ObjectKey, str], Errand] = field(default_factory=OrderedDict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Errands:
    """``run()`` is a task of the application; errands end with it."""

    def __init__(self, commands: Commands, *, clock: Callable[[], float] = time.time) -> None:
        self._commands = commands
        self._clock = clock
        self._known = _Known()

    async def begin(self, key: ObjectKey, asked: Sequence[Asked], actor: str) -> Errand:
        """Have commands done, one after the other, each of which has to end well before the next begins.

        Raises:
            Refused: 409 ``under-way`` while the same is done; as :meth:`Commands.begin` for the first.
            Transient, Broken: from the store; nothing was begun.
        """
        action = asked[0].action
        before = self._known.errands.get((key, action))
        if before is not None and before.ended is None:
            text = f"{before.actor} began a {action} of {key.team}/{key.name} already; it is under way on {before.on}."
            raise Refused(text, status=409, code="under-way")
        errand = Errand(key, action, actor, self._clock(), asked[0].agent)
        self._known.errands[key, action] = errand  # before anything is waited for, so that there is never a second one
        try:
            running = await self._commands.begin(asked[0], actor=actor)
        except BaseException:
            self._restore(key, action, before)
            raise
        self._known.errands.move_to_end((key, action))
        task = asyncio.create_task(self._do(errand, running, asked[1:]), name=f"{action} {key}")
        self._known.tasks.add(task)
        task.add_done_callback(self._known.tasks.discard)
        self._forget()
        return errand

    def of(self, key: ObjectKey) -> tuple[Errand, ...]:
        """Return what was begun about a deployment, newest first."""
        found = [one for one in self._known.errands.values() if one.key == key]
        return tuple(sorted(found, key=lambda one: -one.began))

    async def run(self) -> None:
        """Go on until the application ends, and end what is under way with it."""
        try:
            await asyncio.Event().wait()
        finally:
            tasks = tuple(self._known.tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _restore(self, key: ObjectKey, action: str, before: Errand | None) -> None:
        if before is None:
            self._known.errands.pop((key, action), None)
        else:
            self._known.errands[key, action] = before

    def _forget(self) -> None:
        spare = len(self._known.errands) - REMEMBERED
        for key in [key for key, one in self._known.errands.items() if one.ended is not None][: max(0, spare)]:
            del self._known.errands[key]

    async def _do(self, errand: Errand, running: Running, rest: Sequence[Asked]) -> None:
        try:
            await self._read(errand, running)
            for asked in rest:
                if errand.reason:
                    break
                errand.on = asked.agent
                await self._read(errand, await self._commands.begin(asked, actor=errand.actor))
        except CloudLunacyError as error:
            errand.reason, errand.message = "Refused", str(error)
        except Exception:  # a bug must not leave it under way for ever
            log.exception("doing something about a deployment ended by a bug", key=str(errand.key))
            errand.reason, errand.message = "Failed", "The control plane failed; its log says where."
        finally:
            errand.ended = self._clock()

    async def _read(self, errand: Errand, running: Running) -> None:
        try:
            while not running.is_read:
                piece = await running.next(LOOK_SECONDS)
                if piece is not None:
                    errand.take(piece.text)
        finally:
            self._commands.stop(running)
        last = running.ended
        if last is not None and (last.reason or last.exit_code):
            errand.reason = last.reason or f"exit code {last.exit_code}"
            errand.message = last.message


async def hear(commands: Commands, asked: Asked, *, actor: str, seconds: float) -> tuple[str, str]:
    """Have a command done and return all that it says, with why it did not end well (empty where it did).

    Raises:
        Refused: as :meth:`Commands.begin`.
        Transient, Broken: from the store.
    """
    running = await commands.begin(asked, actor=actor)
    text: list[str] = []
    try:
        async with asyncio.timeout(seconds):
            while not running.is_read:
                piece = await running.next(LOOK_SECONDS)
                if piece is not None:
                    text.append(piece.text)
    except TimeoutError:
        return "".join(text), f"{asked.agent} did not say everything within {seconds:g} s."
    finally:
        commands.stop(running)
    last = running.ended
    if last is None or not (last.reason or last.exit_code):
        return "".join(text), ""
    return "".join(text), ": ".join(filter(None, (last.reason or f"exit code {last.exit_code}", last.message)))
