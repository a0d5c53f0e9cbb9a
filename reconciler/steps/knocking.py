"""Connects to the endpoints of silent agents, from here, where the fronts stand as well.

An agent that says nothing is no reason to take its apps out: it may be the agent alone that is down. So whoever is
led there by a route is tried by opening a connection and closing it. At most :data:`AT_ONCE` at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple

from reconciler.desired.observed import ports_led_to
from reconciler.desired.state import State
from reconciler.desired.verdicts import Judge
from reconciler.observability.logs import get_logger
from reconciler.steps.passing import Published
from schemas.agent import Agent
from schemas.objects import ObjectKey

log = get_logger(__name__)

Connects = Callable[[str, int], Awaitable[bool]]
"""Host and port → whether somebody answers there. Raises nothing."""
ROUND_SECONDS: Final = 2.0
CONNECT_SECONDS: Final = 1.5
AT_ONCE: Final = 64


class Knock(NamedTuple):
    agent: str
    declared: int
    host: str
    port: int


class Found(NamedTuple):
    """What a round found at one agent. ``at``: POSIX seconds."""

    at: float
    answering: int
    silent: tuple[str, ...]


class Knocking:
    """``judge`` says who is silent and is told what was found; ``nudge`` is called when that changes something."""

    def __init__(
        self,
        judge: Judge,
        published: Callable[[], Published],
        nudge: Callable[[], None],
        *,
        connects: Connects | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        seconds: float = ROUND_SECONDS,
    ) -> None:
        self.found: dict[str, Found] = {}
        """By agent, what the last round found; only of agents that are silent."""
        self._judge = judge
        self._published = published
        self._nudge = nudge
        self._connects = connects if connects is not None else connects_to
        self._clock = clock
        self._monotonic = monotonic
        self._seconds = seconds
        self._led_to: tuple[State | None, dict[str, frozenset[int]]] = (None, {})

    async def run(self) -> None:
        """Knock for ever."""
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self.round()
            except Exception:  # a bug must not end the task
                log.exception("probing the endpoints of silent agents ended by a bug, trying again")

    async def round(self) -> None:
        """Try every endpoint of every silent agent once."""
        state = self._published().state
        silent = self._judge.silent(self._monotonic())
        self.found = {name: one for name, one in self.found.items() if name in silent}
        if not silent or state.fleet is None:
            return
        knocks = [knock for name in silent for knock in self._knocks(state, name)]
        at_once = asyncio.Semaphore(AT_ONCE)
        answers = await asyncio.gather(*[self._knock(knock, at_once) for knock in knocks])
        now, before = self._monotonic(), len(self._judge.changes)
        for knock, is_there in zip(knocks, answers, strict=True):
            self._judge.probed(knock.agent, knock.declared, now, answers=is_there)
        self._note(zip(knocks, answers, strict=True))
        if len(self._judge.changes) != before:
            self._nudge()

    async def _knock(self, knock: Knock, at_once: asyncio.Semaphore) -> bool:
        async with at_once:
            return await self._connects(knock.host, knock.port)

    def _knocks(self, state: State, name: str) -> list[Knock]:
        agent = state.objects.get(ObjectKey("Agent", "", name))
        if not isinstance(agent, Agent):
            return []
        if self._led_to[0] is not state:
            self._led_to = (state, {})
        known = self._led_to[1]
        if name not in known:
            known[name] = ports_led_to(state, name)
        host = agent.spec.address
        return [Knock(name, port, host, self._judge.actual(name, port)) for port in sorted(known[name])]

    def _note(self, answers: Iterable[tuple[Knock, bool]]) -> None:
        found: dict[str, tuple[int, list[str]]] = {}
        for knock, is_there in answers:
            count, silent = found.get(knock.agent, (0, []))
            found[knock.agent] = (count + is_there, silent if is_there else [*silent, f"{knock.host}:{knock.port}"])
        now = self._clock()
        self.found |= {name: Found(now, count, tuple(silent)) for name, (count, silent) in found.items()}


async def connects_to(host: str, port: int) -> bool:
    """Open a TCP connection and close it again."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, ValueError, OverflowError):  # a time-out is an OSError; the others: no host, no port
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
