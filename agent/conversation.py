"""One connection to the control plane: what comes goes to the session, and what the session decides is carried out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from agent.endings import End, closed
from agent.services import Extension, Line
from agent.session import (
    AgentSession,
    Agreed,
    Certified,
    Close,
    Command,
    Event,
    Heard,
    Offered,
    Opened,
    Published,
    Received,
    Retreat,
    Send,
    State,
    Take,
    Tick,
    Written,
)
from schemas.session import NEEDS, OBSERVATIONS, CertificateAnswer, Document, offers_of

log = logging.getLogger(__name__)

GOODBYE_SECONDS: Final = 5.0
"""How long the other side may take to close after it said that it would."""


class Conversation:
    """One connection: a task reads, one writes, one keeps the time. The session decides."""

    def __init__(
        self,
        session: AgentSession,
        socket: ClientConnection,
        take: Callable[[str], Document | None],
        answered: Callable[[CertificateAnswer], None],
        *,
        extensions: Sequence[Extension],
        metrics: Callable[[], Mapping[str, float]],
    ) -> None:
        self._session = session
        self._socket = socket
        self._take = take
        self._answered = answered
        self._extensions = extensions
        self._begun: list[Extension] = []
        self._events: deque[Event] = deque()
        """The first one is being carried out."""
        self._metrics = metrics
        # The session paces what it says, and unanswered pings end it before this is much.
        self._outgoing: asyncio.Queue[Send | Close] = asyncio.Queue()
        self._retreat: Retreat | None = None
        self._rescheduled = asyncio.Event()

    def start(self) -> None:
        """Say hello."""
        self.feed(Opened(time.monotonic()))

    async def hold(self) -> End:
        """Hold the conversation until the connection is over."""
        async with asyncio.TaskGroup() as group:
            others = [
                group.create_task(self._write(), name="agent-write"),
                group.create_task(self._keep_time(), name="agent-time"),
            ]
            try:
                async for message in self._socket:
                    self.feed(Received(message, time.monotonic()))
            except ConnectionClosed:
                pass
            finally:
                for task in others:
                    task.cancel()
                for one in self._begun:
                    one.ended()
        return self._end()

    def feed(self, event: Event) -> None:
        """Let the session decide about an event. What happens while that is carried out comes after it: the messages
        that were decided before have lower numbers.
        """
        self._events.append(event)
        if len(self._events) > 1:
            return
        deadline = self._session.deadline
        while self._events:
            for command in self._session.handle(self._events[0]):
                self._carry_out(command)
            self._events.popleft()
        if self._session.deadline != deadline or self._session.state is State.CLOSING:
            self._rescheduled.set()

    def _carry_out(self, command: Command) -> None:
        match command:
            case Send() | Close():
                self._outgoing.put_nowait(command)
            case Take(jws):
                if (document := self._take(jws)) is not None:
                    self.feed(Offered(offers_of(document)))
            case Certified(answer):
                self._answered(answer)
            case Retreat():
                self._retreat = command
            case Agreed(features):
                self._begin(features)
            case Published(token):
                self._hear(OBSERVATIONS, token)
            case Heard(message):
                self._hear(NEEDS[message.type], message)

    def _begin(self, features: frozenset[str]) -> None:
        log.info("both sides know: %s", ", ".join(sorted(features)))
        for one in self._extensions:
            if one.feature in features:
                self._begun.append(one)
                one.begun(Line(self.feed, self._session.waiting))

    def _hear(self, feature: str, what: object) -> None:
        for one in self._begun:
            if one.feature == feature:
                one.heard(what)

    async def _write(self) -> None:
        try:
            while True:
                match await self._outgoing.get():
                    case Send(text):
                        await self._socket.send(text)
                        self.feed(Written())
                    case Close(code, reason):
                        await self._socket.close(code, reason)
        except ConnectionClosed:
            return

    async def _keep_time(self) -> None:
        while self._session.state is not State.CLOSING:
            self._rescheduled.clear()
            try:
                async with asyncio.timeout(self._session.deadline - time.monotonic()):
                    await self._rescheduled.wait()
            except TimeoutError:
                self.feed(Tick(time.monotonic(), self._metrics()))
        await asyncio.sleep(GOODBYE_SECONDS)
        await self._socket.close()

    def _end(self) -> End:
        pause = self._retreat.seconds if self._retreat is not None else 0.0
        return closed(self._socket.close_code, self._socket.close_reason or "", pause)
