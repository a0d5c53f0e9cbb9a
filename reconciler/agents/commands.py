"""One-shot work on agents that people ask for: who waits for it, and for how long (docs/commands.md).

The way of a command: it is written into the timeline → sent to the agent → what it says is held for whoever reads, up
to a bound → it ends: by itself, because nobody reads any more, because its time is over, or because the agent is gone →
how it ended is written into the timeline. Nothing is done that could not be written down first, and what a command
says, or was given as arguments, is written down nowhere.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from reconciler.errors import CloudLunacyError, Refused
from reconciler.store.protocols import Event, EventStore
from schemas.session import Command, CommandOutput, CommandStop
from schemas.text import visible

log = structlog.get_logger(__name__)

AT_ONCE: Final = 8
"""Commands under way on one agent, as the agent sees it too."""
AT_ONCE_IN_ALL: Final = 256
HELD: Final = 512 * 1024
"""Characters that one command may have said without anybody having read them; what is newer is left out and counted."""
GRACE_SECONDS: Final = 10.0
"""After its time an agent has so long to say that it ended."""
RETRY_SECONDS: Final = 5.0


class Agents(Protocol):
    """:class:`reconciler.agents.hub.Hub`."""

    @property
    def connected(self) -> frozenset[str]: ...

    def tell(self, name: str, message: Command | CommandStop) -> bool:
        """Say something to an agent that is connected and knows what it means; False where none is."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants done. ``said``: for the timeline, without arguments that may be secret."""

    agent: str
    action: str
    item: str
    """Id of the deployment's item."""
    said: str
    seconds: float
    arguments: Mapping[str, str]
    words: tuple[str, ...] = ()


class Running:
    """A command that was sent. Read it with :meth:`next` until :attr:`ended`, by one reader."""

    def __init__(self, asked: Asked, name: str, actor: str, began: float) -> None:
        self.id = name
        self.asked = asked
        self.actor = actor
        self.began = began
        self.ended: CommandOutput | None = None
        """The last piece; nothing comes after it, but what was held before it is still to be read."""
        self._held: deque[CommandOutput] = deque()
        self._characters = 0
        self._dropped = 0
        self._news = asyncio.Event()

    def put(self, piece: CommandOutput) -> None:
        """Hold a piece for the reader, or leave it out."""
        if self.ended is not None:
            return
        if piece.last:
            self.ended = piece
        if self._characters + len(piece.text) > HELD:
            self._dropped += piece.dropped + max(1, piece.text.count("\n"))
            piece = piece.model_copy(update={"text": "", "dropped": 0})
            if not piece.last:
                return
        if self._dropped:
            piece = piece.model_copy(update={"dropped": piece.dropped + self._dropped})
            self._dropped = 0
        self._held.append(piece)
        self._characters += len(piece.text)
        self._news.set()

    async def next(self, seconds: float) -> CommandOutput | None:
        """Return the next piece; None where none came in time, and after the last."""
        if not self._held and self.ended is None:
            self._news.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                return None
        if not self._held:
            return None
        piece = self._held.popleft()
        self._characters -= len(piece.text)
        return piece

    @property
    def is_read(self) -> bool:
        """Nothing is left to come."""
        return self.ended is not None and not self._held


class Commands:
    """``run()`` is a task of the application; it ends what is late and writes down what ended."""

    def __init__(
        self,
        agents: Agents,
        events: EventStore,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._agents = agents
        self._events = events
        self._clock = clock
        self._monotonic = monotonic
        self._new_id = new_id
        self._running: dict[str, Running] = {}
        self._unwritten: deque[Event] = deque()
        self._more = asyncio.Event()

    @property
    def running(self) -> int:
        return len(self._running)

    async def begin(self, asked: Asked, *, actor: str) -> Running:
        """Write it down and send it.

        Raises:
            Refused: 429 ``too-many-commands``; 503 ``agent-away`` where the agent is not connected, or too old.
            Transient, Broken: from the store; nothing was sent.
        """
        self._require_room(asked.agent)
        running = Running(asked, self._new_id(), actor, self._monotonic())
        self._running[running.id] = running
        try:
            self._require_there(asked.agent)
            await self._events.append(self._event(running, "CommandBegun", "info", f"{actor} began {asked.said}."))
            self._send(running)
        except BaseException:
            self._running.pop(running.id, None)
            raise
        return running

    def _send(self, running: Running) -> None:
        asked = running.asked
        command = Command(
            id=running.id,
            action=asked.action,
            item=asked.item,
            arguments=dict(asked.arguments),
            words=asked.words,
            seconds=asked.seconds,
        )
        if not self._agents.tell(asked.agent, command):
            text = f'Agent "{asked.agent}" knows no commands, or has just gone.'
            self._end(running, "AgentAway", text)
            hint = "Upgrade the agent, or wait until it is back."
            raise Refused(text, status=503, code="agent-away", hint=hint, retry_after=5.0)

    def stop(self, running: Running) -> None:
        """Nobody reads any more: the agent ends the work."""
        if running.ended is None:
            self._agents.tell(running.asked.agent, CommandStop(id=running.id))
            self._end(running, "Stopped", "Nobody waits for it any more.")

    def end(self, running: Running, reason: str, message: str) -> None:
        """Stop it, and let the reader hear why."""
        if running.ended is None:
            self._agents.tell(running.asked.agent, CommandStop(id=running.id))
            self._end(running, reason, message)

    # --- the observer's calls -------------------------------------------------------------------------------------

    def said(self, agent: str, piece: CommandOutput) -> None:
        """An agent said something; about a command that is not its own, or not any more, it counts for nothing."""
        running = self._running.get(piece.id)
        if running is None or running.asked.agent != agent:
            return
        if piece.last:
            self._end(running, piece.reason, piece.message, piece)
        else:
            running.put(piece)

    def gone(self, agent: str) -> None:
        """An agent's session is over, and what it did with it."""
        text = f'Agent "{agent}" disconnected, and has ended it; what it did until then is done.'
        for running in [one for one in self._running.values() if one.asked.agent == agent]:
            self._end(running, "AgentGone", text)

    # --- the task -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """End what is late, and write down what ended, for ever."""
        while True:
            self._end_late()
            try:
                await self._write()
                pause = 1.0 if self._running else None
            except CloudLunacyError as error:
                log.warning("how commands ended cannot be written yet", error=str(error))
                pause = RETRY_SECONDS
            except Exception:  # a bug must not end the task
                log.exception("writing how commands ended ended by a bug, trying again")
                pause = RETRY_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._more.wait()
            except TimeoutError:
                continue
            self._more.clear()

    def _end_late(self) -> None:
        now = self._monotonic()
        for running in list(self._running.values()):
            if now >= running.began + running.asked.seconds + GRACE_SECONDS:
                self.end(running, "TimedOut", f"It took longer than {running.asked.seconds:g} s.")

    async def _write(self) -> None:
        while self._unwritten:
            await self._events.append(self._unwritten[0])
            self._unwritten.popleft()

    # --- small steps ----------------------------------------------------------------------------------------------

    def _require_room(self, agent: str) -> None:
        counts = Counter(one.asked.agent for one in self._running.values())
        if counts[agent] >= AT_ONCE or counts.total() >= AT_ONCE_IN_ALL:
            where = f'on agent "{agent}"' if counts[agent] >= AT_ONCE else "on all agents together"
            text = f"{counts[agent] if counts[agent] >= AT_ONCE else counts.total()} commands are under way {where}."
            raise Refused(text, status=429, code="too-many-commands", retry_after=5.0)

    def _require_there(self, agent: str) -> None:
        if agent not in self._agents.connected:
            text = f'Agent "{agent}" is not connected.'
            raise Refused(text, status=503, code="agent-away", hint="cloudlunacy agent status there says why.")

    def _end(self, running: Running, reason: str, message: str, last: CommandOutput | None = None) -> None:
        running.put(last or CommandOutput(id=running.id, last=True, reason=reason, message=message))
        self._running.pop(running.id, None)
        took = self._monotonic() - running.began
        good = not reason and running.ended is not None and not running.ended.exit_code
        text = f"{running.asked.said} {_how(running.ended)} after {took:.1f} s."
        severity = "info" if good or reason == "Stopped" else "warning"
        self._unwritten.append(self._event(running, "CommandEnded", severity, text))
        self._more.set()

    def _event(self, running: Running, kind: str, severity: str, text: str) -> Event:
        message = f"{visible(text)} (command {running.id})"
        return Event(
            time=self._clock(),
            type=kind,
            severity="info" if severity == "info" else "warning",
            subject=running.asked.item,
            message=message,
            actor=running.actor,
        )


def _how(ended: CommandOutput | None) -> str:
    if ended is None or ended.reason == "Stopped":
        return "was stopped"
    if ended.reason:
        return f"ended with {ended.reason}"
    if ended.exit_code:
        return f"ended with exit code {ended.exit_code}"
    return "ended well"


def said_of(action: str, agent: str, words: Sequence[str] = ()) -> str:
    """Say for the timeline what a command is, without arguments: they may hold passwords."""
    if not words:
        return f"{action} on {agent}"
    more = len(words) - 1
    arguments = {0: "", 1: " and an argument"}.get(more, f" and {more} arguments")
    return f"{action} of {words[0][:80]}{arguments} on {agent}"
