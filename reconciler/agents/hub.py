"""All connected agents: who they are, what each should have, and when a connection has to end.

What happens here, in order, for one agent: :meth:`Hub.admit` (before the WebSocket is accepted) → :meth:`Hub.serve`
reads until the connection is over → whatever the session decides is carried out at once. The loop reaches in with
:meth:`Hub.publish` and :meth:`Hub.revoke`; one timer ends silent sessions.

The newest connection of a name wins: an agent that lost its network comes back while its old socket still looks alive,
and must not wait until that is noticed (docs/adr/0009). An idle agent costs no task here but its own request's; a task
for sending exists only while a transport has no room (docs/adr/0008).
"""

from __future__ import annotations

import asyncio
import logging
import random as randomness
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from reconciler.agents.admission import Admission
from reconciler.agents.connection import (
    Certifier,
    Connection,
    NoCertificates,
    NoSecrets,
    Observer,
    SecretsGiver,
    tell,
)
from reconciler.agents.counters import HubCounters
from reconciler.agents.delivery import Wanted
from reconciler.agents.documents import Signer, WantedDocument
from reconciler.agents.extensions import SecretsAnswered, SecretsAsked, Tell, ToldMessage
from reconciler.agents.mailbox import Mailboxes
from reconciler.agents.session import (
    WRITE_FINISHED,
    AgentSession,
    Asked,
    Close,
    Command,
    Dismissed,
    Event,
    Heard,
    Ignored,
    Lost,
    Observed,
    Received,
    Send,
    SessionLimits,
    State,
    Tick,
)
from reconciler.errors import CloudLunacyError, Refused
from schemas.session import CertificateRequest, CloseCode, Hello, Report, SecretsRequest

log = logging.getLogger(__name__)

REVOKED: Final = Dismissed(CloseCode.REVOKED, "Revoked", "This agent is not in service any more.")
QUARANTINED: Final = Dismissed(
    CloseCode.REVOKED, "Quarantined", "The agent's file keeps it out (spec.state: quarantined)."
)
REPLACED: Final = Dismissed(CloseCode.REPLACED, "Replaced", "The same agent opened a newer connection.")
CLOSE_SECONDS: Final = 1.0
"""How long a close frame may wait for room in the transport."""
TYPE_AT: Final = len('{"type":"')
"""Where a message names its type: it comes first in all that a session sends."""
SHUTTING_DOWN: Final = Dismissed(CloseCode.GOING_AWAY, "ShuttingDown", "The control plane is shutting down.")


@dataclass(frozen=True, slots=True)
class HubLimits:
    """Times are in seconds."""

    session: SessionLimits = field(default_factory=SessionLimits)
    max_connections: int = 10_000
    admissions_per_second: float = 200.0
    admission_burst: int = 400
    send_seconds: float = 10.0
    """How long a transport may have no room before its agent counts as stalled."""
    tick_seconds: float = 1.0
    batch: int = 64
    """Agents that are offered a document before everybody else gets a turn."""


class _Member:
    """One connection. ``announced``: the observer was told of it."""

    __slots__ = ("announced", "closing", "connection", "name", "reason", "sending", "session")

    def __init__(self, name: str, session: AgentSession, connection: Connection) -> None:
        self.name = name
        self.session = session
        self.connection = connection
        self.announced = False
        self.reason = ""
        self.sending: asyncio.Task[None] | None = None
        self.closing: asyncio.Task[None] | None = None


class Hub:
    """``authorised(name, thumbprint)`` says whether that key is that agent's at this moment, and it is let in;
    ``quarantined(name)`` whether its file keeps it out. ``session_limits()`` are those of a connection that begins.
    ``certifier`` answers requests for certificates of services, ``secrets`` those for values of secrets.
    """

    def __init__(
        self,
        signer: Signer,
        authorised: Callable[[str, str], bool],
        observer: Observer,
        *,
        quarantined: Callable[[str], bool] = lambda _: False,
        session_limits: Callable[[], SessionLimits] | None = None,
        certifier: Certifier | None = None,
        secrets: SecretsGiver | None = None,
        limits: HubLimits = HubLimits(),
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self.counters = HubCounters()
        self._authorised = authorised
        self._quarantined = quarantined
        self._observer = observer
        self._certifier = certifier or NoCertificates()
        self._secrets = secrets or NoSecrets()
        self._limits = limits
        self._session_limits = session_limits if session_limits is not None else lambda: limits.session
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._admission = Admission(limits.admissions_per_second, limits.admission_burst)
        self._mailboxes = Mailboxes(signer, clock, monotonic)
        self._members: dict[str, _Member] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._everybody_left = asyncio.Event()

    @property
    def connected(self) -> frozenset[str]:
        """Names of the agents whose hello was good and whose connection stands."""
        return frozenset(name for name, member in self._members.items() if member.announced)

    @property
    def connections(self) -> int:
        return len(self._members)

    @property
    def sending(self) -> int:
        """Connections whose transport has no room just now, and those being closed."""
        return len(self._tasks)

    def admit(self, name: str, thumbprint: str) -> None:
        """Decide whether an authenticated agent may connect now.

        Raises:
            Refused: 403 ``agent-revoked`` or ``agent-quarantined``; 503 ``busy`` with a ``retry_after`` of its own
                for each.
        """
        if not self._authorised(name, thumbprint):
            dismissed = self._unwanted(name)
            raise Refused(dismissed.message, status=403, code=f"agent-{dismissed.reason.lower()}")
        if self._closing:
            raise self._busy("The control plane is shutting down.", 1.0)
        if name not in self._members and len(self._members) >= self._limits.max_connections:
            raise self._busy("There is no room for another agent.", 30.0)
        wait = self._admission.admit(self._monotonic())
        if wait is not None:
            raise self._busy("Too many agents connect at once.", wait)

    async def serve(self, name: str, thumbprint: str, connection: Connection) -> None:
        """Hold the conversation with one agent until its connection is over."""
        member = self._attach(name, connection)
        try:
            if not self._authorised(name, thumbprint):  # revoked since it was admitted
                self._feed(member, self._unwanted(name))
            if self._closing:
                self._feed(member, SHUTTING_DOWN)
            while member.session.state is not State.CLOSING:
                data = await connection.receive()
                if data is None:
                    break
                self._feed(member, Received(data, self._monotonic()))
            if member.closing is not None:  # the server drops the connection once this returns
                await member.closing
        finally:
            self._detach(member)

    async def publish(self, documents: Mapping[str, WantedDocument]) -> frozenset[str]:
        """Make these the wanted documents; what is not named stays as it is.

        Returns the names of the connected agents whose document changed: each was handed its document, or has it
        waiting in its mailbox. A document older than the wanted one is left out.
        """
        changed = [name for name, document in documents.items() if self._mailboxes.put(name, document)]
        offered: set[str] = set()
        for begin in range(0, len(changed), self._limits.batch):
            if begin:
                await asyncio.sleep(0)
            for name in changed[begin : begin + self._limits.batch]:
                if (member := self._members.get(name)) is not None:
                    self._offer(member)
                    offered.add(name)
        return frozenset(offered)

    def tell(self, name: str, message: ToldMessage) -> bool:
        """Say something to an agent that is connected and said that it knows the feature; False where none is.

        The session gives the message its number. Messages arrive in their order, after documents that wait.
        """
        member = self._members.get(name)
        if member is None or member.session.state is State.CLOSING or not member.session.knows(message.type):
            return False
        self._feed(member, Tell(message))
        return True

    def revoke(self, names: Iterable[str]) -> None:
        """Forget what these agents should have, and close their connections at once."""
        for name in names:
            self._mailboxes.forget(name)
            if (member := self._members.get(name)) is not None:
                self._feed(member, self._unwanted(name))

    async def close(self, deadline: float = 5.0) -> None:
        """Say goodbye to everybody, each with a pause of its own; drop who is still there after ``deadline``."""
        self._closing = True
        spread = max(1.0, len(self._members) / self._limits.admissions_per_second)
        for member in list(self._members.values()):
            pause = round(self._random() * spread, 3)
            self._feed(member, SHUTTING_DOWN._replace(retry_seconds=pause))
        try:
            async with asyncio.timeout(deadline):
                while self._members:
                    self._everybody_left.clear()
                    await self._everybody_left.wait()
        except TimeoutError:
            for member in self._members.values():
                self._drop(member, "ShuttingDown")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._stop_timer()

    def _unwanted(self, name: str) -> Dismissed:
        return QUARANTINED if self._quarantined(name) else REVOKED

    def _attach(self, name: str, connection: Connection) -> _Member:
        if (old := self._members.get(name)) is not None:
            self._feed(old, REPLACED)
            self._tell_gone(old)
        now = self._monotonic()
        member = _Member(name, AgentSession(name, self._session_limits(), now), connection)
        self._members[name] = member
        self.counters.accepted += 1
        self._offer(member)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._limits.tick_seconds, self._tick)
        return member

    def _detach(self, member: _Member) -> None:
        if member.sending is not None:
            member.sending.cancel()
        member.session.handle(Lost())
        if not member.reason:
            self._note(member, "ConnectionLost")
        if self._members.get(member.name) is member:
            del self._members[member.name]
            if not self._members:
                self._everybody_left.set()
                self._stop_timer()
        self._tell_gone(member)

    def _tell_gone(self, member: _Member) -> None:
        if member.announced:
            member.announced = False
            self._observer.disconnected(member.name, member.reason, self._clock())

    def _tick(self) -> None:
        now = self._monotonic()
        for member in [member for member in self._members.values() if member.session.deadline <= now]:
            self._feed(member, Tick(now))
        self._timer = asyncio.get_running_loop().call_later(self._limits.tick_seconds, self._tick)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _offer(self, member: _Member) -> None:
        if (document := self._mailboxes.wanted(member.name)) is not None:
            jws = partial(self._mailboxes.jws, member.name, document)
            self._feed(member, Wanted(document.generation, document.digest, jws))

    # Carrying out what a session decided.

    def _feed(self, member: _Member, event: Event) -> None:
        try:
            commands = member.session.handle(event)
        except CloudLunacyError as error:
            self.counters.unsignable += 1
            log.error("no document for %s: %s", member.name, error)  # noqa: TRY400  the message says it all
            return
        for command in commands:
            self._carry_out(member, command)

    def _carry_out(self, member: _Member, command: Command) -> None:
        match command:
            case Send(text):
                self._send(member, text)
            case Observed(message):
                self._tell(member, message)
            case Close(code, reason):
                self._close(member, code, reason)
            case Asked(request):
                self.counters.messages[request.type, "in"] += 1
                self._start(self._certify(member, request), f"certify {member.name}")
            case SecretsAsked(request):
                self.counters.messages[request.type, "in"] += 1
                self._start(self._give_secrets(member, request), f"secrets for {member.name}")
            case Ignored(reason):
                self.counters.ignored[reason] += 1

    def _tell(self, member: _Member, message: Heard) -> None:
        self.counters.messages[message.type, "in"] += 1
        if isinstance(message, Hello):
            member.announced = True
        if isinstance(message, Report) and message.outcome == "applied":
            self._mailboxes.applied(member.name, message.digest)
        tell(self._observer, member.name, message, self._clock())

    async def _certify(self, member: _Member, request: CertificateRequest) -> None:
        document = self._mailboxes.wanted(member.name)
        self._feed(member, await self._certifier.answer(member.name, document, request))

    async def _give_secrets(self, member: _Member, request: SecretsRequest) -> None:
        document = self._mailboxes.wanted(member.name)
        self._feed(member, SecretsAnswered(await self._secrets.answer(member.name, document, request)))

    def _send(self, member: _Member, text: str) -> None:
        self.counters.messages[text[TYPE_AT : text.index('"', TYPE_AT)], "out"] += 1
        if member.connection.try_send(text):
            self._feed(member, WRITE_FINISHED)
        else:
            member.sending = self._start(self._send_slowly(member, text), f"send to {member.name}")

    async def _send_slowly(self, member: _Member, text: str) -> None:
        try:
            async with asyncio.timeout(self._limits.send_seconds):
                await member.connection.send(text)
        except TimeoutError:
            self.counters.stalled += 1
            self._drop(member, "Stalled")
        except (OSError, RuntimeError):  # RuntimeError: ASGI servers, after a close that crossed ours
            self._drop(member, "ConnectionLost")
        else:
            member.sending = None
            self._feed(member, WRITE_FINISHED)

    def _close(self, member: _Member, code: int, reason: str) -> None:
        self._note(member, reason)
        member.closing = self._start(self._close_soon(member, code, reason), f"close {member.name}")

    async def _close_soon(self, member: _Member, code: int, reason: str) -> None:
        """Close with a handshake; a peer that does not even read is dropped."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                if member.sending is not None:
                    await asyncio.wait([member.sending])
                await member.connection.close(code, reason)
        except (OSError, RuntimeError):  # a time-out is an OSError
            member.connection.abort()

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _drop(self, member: _Member, reason: str) -> None:
        member.session.handle(Lost())
        self._note(member, reason)
        member.connection.abort()

    def _note(self, member: _Member, reason: str) -> None:
        if not member.reason:
            member.reason = reason
            self.counters.closed[reason] += 1

    def _busy(self, message: str, wait: float) -> Refused:
        self.counters.turned_away += 1
        return Refused(message, status=503, code="busy", retry_after=wait + self._random())
