"""Keeps one connection to the control plane, and the machine as its document says with or without that connection.

What happens, in order: what is on disk is verified and applied → connect, hello, welcome → documents are taken,
outcomes reported, heartbeats sent → when the connection breaks, wait (full jitter, or as long as the control plane
asked for) and connect again, for ever. Two named tasks do it, ``agent-apply`` and ``agent-connection``; beside them run
the others of its :class:`Parts`. An error in any that nobody foresaw ends it, so that the machine's supervisor
starts the agent anew.
"""

from __future__ import annotations

import asyncio
import logging
import random as randomness
import signal
import ssl
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from agent.applier import Applier
from agent.backoff import Backoff
from agent.conversation import Conversation
from agent.documents import UNKNOWN_KEY, DocumentKeys, DocumentStore
from agent.endings import End, refused
from agent.left_behind import Note, way_back
from agent.pinning import explained
from agent.reporting import Outcome
from agent.services import Asker, Changing, Extension, Nobody, Service
from agent.session import AgentSession, Held, SessionLimits
from schemas.jwk import JwkSet
from schemas.session import MAX_DOCUMENT, SUBPROTOCOL, Document, offers_of

log = logging.getLogger(__name__)

Tasks = Mapping[str, Callable[[], Coroutine[Any, Any, None]]]
"""Name → what to run for ever."""

SLOWLY: Final = 60.0
"""Seconds between attempts when the control plane does not want this agent; a person has to change something."""


class CredentialsUnavailable(Exception):
    """No headers can be made just now. ``refused``: the control plane said that this agent may not have any."""

    def __init__(self, message: str, *, refused: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.refused = refused
        self.retry_after = retry_after


class Credentials(Protocol):
    """What enrolment left on this machine."""

    @property
    def name(self) -> str: ...

    @property
    def stream_url(self) -> str:
        """``wss://…/api/v1/agents/stream``."""
        ...

    @property
    def jwks(self) -> JwkSet:
        """The pinned keys that sign documents."""
        ...

    @property
    def tls(self) -> ssl.SSLContext | None:
        """Trusts the pinned authority only; None for ``ws://``."""
        ...

    async def headers(self, method: str, url: str) -> Mapping[str, str]:
        """Return headers that prove who sends this one request.

        Raises:
            CredentialsUnavailable, OSError
        """
        ...

    def forget(self) -> None:
        """What the headers were made of was refused; do not use it again."""
        ...


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Times are in seconds."""

    backoff_base: float = 0.5
    backoff_cap: float = 60.0
    stable: float = 60.0
    """A connection that lasted so long starts the back-off anew."""
    start: float = 30.0
    """How long connecting waits for the first attempt to apply what is on disk."""
    open_timeout: float = 15.0
    ping: float = 20.0
    """A connection whose other end answers no ping for so long is dead."""
    slowly: float = SLOWLY
    session: SessionLimits = field(default_factory=SessionLimits)


async def _nothing_to_prepare() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Parts:
    """What an agent has beside its services."""

    asker: Asker = field(default_factory=Nobody)
    """Asks the control plane for certificates in each connection."""
    extensions: Sequence[Extension] = ()
    """Use what else both sides know."""
    others: Tasks = field(default_factory=dict)
    hold: Callable[[Document], None] = lambda _document: None
    """Hears of each document that is in force from then on, before it is applied."""
    metrics: Callable[[], Mapping[str, float]] = dict
    """Go with heartbeats."""
    presence: Callable[[bool], None] = lambda _connected: None
    """Hears whether a connection stands: at the start that none does, then of each change."""
    prepare: Callable[[], Coroutine[Any, Any, None]] = _nothing_to_prepare
    """What has to stand before anybody hears that the agent is there."""


async def run(
    data_dir: Path,
    services: Sequence[Service],
    credentials: Credentials,
    stop: asyncio.Event,
    *,
    settings: ClientSettings | None = None,
    parts: Parts | None = None,
    random: Callable[[], float] = randomness.random,
) -> None:
    """Be the agent until ``stop`` is set.

    Raises:
        OSError: when ``data_dir`` cannot be read.
        ExceptionGroup: for an error that is a bug of this program.
    """
    parts = parts or Parts()
    client = _Client(data_dir, services, credentials, settings=settings or ClientSettings(), parts=parts, random=random)
    client.applier.load()
    await parts.prepare()
    parts.presence(False)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(client.applier.run(), name="agent-apply"),
            group.create_task(client.stay_connected(), name="agent-connection"),
            *(group.create_task(run_other(), name=name) for name, run_other in parts.others.items()),
        ]
        await stop.wait()
        for task in tasks:
            task.cancel()


def run_until_signalled(
    data_dir: Path,
    services: Sequence[Service],
    credentials: Credentials,
    *,
    settings: ClientSettings | None = None,
    parts: Parts | None = None,
) -> None:
    """Be the agent until SIGTERM or SIGINT."""

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run(data_dir, services, credentials, stop, settings=settings, parts=parts)

    asyncio.run(main())


class _Connect(connect):
    """Follows no redirects: the proof in the headers is for one address only."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Client:
    def __init__(
        self,
        data_dir: Path,
        services: Sequence[Service],
        credentials: Credentials,
        *,
        settings: ClientSettings,
        parts: Parts,
        random: Callable[[], float],
    ) -> None:
        self._credentials = credentials
        self._settings = settings
        self._parts = parts
        self._random = random
        self._backoff = Backoff(settings.backoff_base, settings.backoff_cap, settings.stable)
        self._unwanted = 0
        """How often in a row the control plane did not want this agent."""
        self._conversation: Conversation | None = None
        self._left_behind = Note(data_dir)
        self.applier = Applier(
            DocumentStore(data_dir),
            services,
            agent=credentials.name,
            keys=DocumentKeys(lambda: credentials.jwks),
            report=self._report,
            clock=lambda: datetime.now(UTC),
            random=random,
            hold=self._hold,
        )
        for service in (*services, self._parts.asker):
            if isinstance(service, Changing):
                service.on_change = self.applier.again

    async def stay_connected(self) -> None:
        """Connect again and again; never returns."""
        try:
            async with asyncio.timeout(self._settings.start):
                await self.applier.settled.wait()
        except TimeoutError:
            log.warning("what is on disk is still being applied; connecting meanwhile")
        while True:
            began = time.monotonic()
            end = await self._attempt()
            self._backoff.succeeded(time.monotonic() - began)
            pause = self._backoff.next(self._random(), at_least=self._least_pause(end))
            log.log(logging.ERROR if end.unwanted else logging.WARNING, "%s; next attempt in %.1f s", end.why, pause)
            await asyncio.sleep(pause)

    def _least_pause(self, end: End) -> float:
        """The first time that the agent is not wanted may be a token that grew old on the way; then it is meant."""
        self._unwanted = self._unwanted + 1 if end.unwanted else 0
        return max(end.at_least, self._settings.slowly) if self._unwanted > 1 else end.at_least

    async def _attempt(self) -> End:
        url = self._credentials.stream_url
        try:
            headers = await self._credentials.headers("GET", url)
            async with _Connect(
                url,
                additional_headers=headers,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                max_size=MAX_DOCUMENT,
                max_queue=2,
                ssl=self._credentials.tls,
                proxy=None,
                open_timeout=self._settings.open_timeout,
                ping_interval=self._settings.ping,
                ping_timeout=self._settings.ping,
                close_timeout=2,
            ) as socket:
                return await self._converse(socket)
        except CredentialsUnavailable as error:
            return End(str(error), error.retry_after, unwanted=error.refused)
        except InvalidStatus as error:
            self._credentials.forget()
            answer = error.response
            return refused(answer.status_code, answer.headers.get("Retry-After", ""), bytes(answer.body))
        except (OSError, WebSocketException) as error:
            said = explained(error, url)
            if said is not None and said.unknown_authority:
                why = f"{said} {way_back(self._credentials.name)}"
                self._left_behind.write(why)
                return End(why)
            return End(str(said or f"the control plane cannot be reached: {type(error).__name__}: {error}"))

    async def _converse(self, socket: ClientConnection) -> End:
        self._left_behind.clear()
        session = AgentSession(
            self._credentials.name,
            _version(),
            self.applier.applied,
            self._settings.session,
            held=_held(self.applier.held),
            knows={one.feature for one in self._parts.extensions},
        )
        self._conversation = Conversation(
            session,
            socket,
            self.applier.take,
            self._parts.asker.answered,
            extensions=self._parts.extensions,
            metrics=self._parts.metrics,
        )
        self._conversation.start()
        if (damage := self.applier.damage) is not None:
            self.applier.damage = None
            self._report(Outcome(0, None, "refused", "DamagedOnDisk", f"{damage.reason}: {damage.message}"))
        if self.applier.outcome is not None:  # reached while nobody was there to hear it
            self._conversation.feed(self.applier.outcome)
        self._parts.asker.connected(self._conversation.feed)
        self._parts.presence(True)
        try:
            return await self._conversation.hold()
        finally:
            self._conversation = None
            self._parts.asker.disconnected()
            self._parts.presence(False)

    def _hold(self, document: Document) -> None:
        """A document is in force from now on: what it offers is known before anything of it is applied."""
        self._parts.hold(document)
        for one in self._parts.extensions:
            one.offered(one.feature in offers_of(document))

    def _report(self, outcome: Outcome) -> None:
        log.info("generation %d: %s %s", outcome.generation, outcome.outcome, outcome.reason)
        if outcome.reason == UNKNOWN_KEY:
            self._left_behind.write(outcome.message)
        if self._conversation is not None:
            self._conversation.feed(outcome)


def _held(document: Document | None) -> Held | None:
    return None if document is None else Held(document.digest, offers_of(document))


def _version() -> str:
    try:
        return version("cloudlunacy")[:64]
    except PackageNotFoundError:
        return "unknown"
