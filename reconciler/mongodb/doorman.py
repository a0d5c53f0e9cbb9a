"""Answers drivers whose connection no route wants, so that they say what is wrong instead of trying for 30 seconds.

A driver takes a closed connection for a server that will soon be back, and the sentence of a failed ``hello`` for the
state of a server that may change: either is tried again until ``serverSelectionTimeoutMS``. What it reports at once is
the failure of a command. So each door says hello as a server would, and answers any command, of which the first is that
of the authentication, with its sentence (ADR 26). It has no data, asks for no password and reads no more than the name
of a command.

Each door is a listener of its own on loopback, because Traefik's router knows what is wrong and its backend does not.
The doors' ports stand in the fronts' files, so they are noted in the data directory and taken again.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from reconciler.desired.doors import DOORS, Door, Doors
from reconciler.errors import Broken
from reconciler.mongodb.wire import Malformed, Reader, Request, answer
from reconciler.observability.logs import get_logger
from reconciler.pki.private_files import write_private

log = get_logger(__name__)

HOST: Final = "127.0.0.1"
FILE_NAME: Final = "doors.json"
SECONDS: Final = 15.0
"""For one connection: drivers look after their servers each 10 s."""
MOST_CONNECTIONS: Final = 128
"""At a time, at all doors."""
MOST_REQUESTS: Final = 32
"""Of one connection."""
SENTENCES: Final[Mapping[Door, str]] = {
    "plain": "This connection came without TLS, and databases are reached over TLS only: add tls=true to the "
    "connection string. Nothing was let through.",
    "unnamed": "This connection came without a server name (SNI), so nobody knows which database is meant: connect to "
    "the name <agent>.mongodb.<domain> and not to an IP address.",
    "unknown": "No database answers to this name: it has to be <agent>.mongodb.<domain> of an agent that a route of "
    "type mongodb leads to. `cloudlunacy mongodb uri` prints the right one.",
}
_FAILED: Final = 18
"""AuthenticationFailed: what drivers never repeat."""
_HELLO: Final = frozenset({"hello", "ismaster"})
_GREETING: Final[Mapping[str, Any]] = {
    "ismaster": True,
    "isWritablePrimary": True,
    "helloOk": True,
    "maxBsonObjectSize": 16 * 1024 * 1024,
    "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000,
    # every driver knows some version between these; whoever knows none would say that, and not our sentence
    "minWireVersion": 0,
    "maxWireVersion": 25,
    "saslSupportedMechs": ["SCRAM-SHA-256"],
    "readOnly": True,
    "ok": 1.0,
}


class Doorman:
    """The listeners. Make it with :meth:`open`; :meth:`run` serves until it is cancelled."""

    def __init__(self, sockets: Mapping[Door, socket.socket]) -> None:
        self._sockets = dict(sockets)
        self.on_visit: Callable[[Door], None] = lambda _: None
        """Called for each connection that comes."""
        self._talks: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    @classmethod
    def open(cls, data: Path) -> Doorman:
        """Listen on the ports that are noted in ``data``, or on others where these are taken or none are noted.

        Raises:
            Broken: when nothing can be listened on, or nothing written.
        """
        noted = _noted(data / FILE_NAME)
        with ExitStack() as opened:
            sockets: dict[Door, socket.socket] = {}
            for door in DOORS:
                sockets[door] = opened.enter_context(_listen(noted.get(door, 0)))
            opened.pop_all()
        doorman = cls(sockets)
        if dict(noted) != dict(doorman.ports):
            _note(data / FILE_NAME, doorman.ports)
        return doorman

    @property
    def ports(self) -> dict[Door, int]:
        return {door: int(one.getsockname()[1]) for door, one in self._sockets.items()}

    @property
    def doors(self) -> Doors:
        """Where Traefik finds the doors."""
        return Doors({door: f"{HOST}:{port}" for door, port in self.ports.items()})

    async def run(self) -> None:
        """Answer until cancelled; then every listener is closed."""
        servers = []
        try:
            for door, one in self._sockets.items():
                servers.append(await asyncio.start_server(_Answering(self, door), sock=one))
            await asyncio.Event().wait()
        finally:
            for server in servers:
                server.close()
            self.close()
            await self._hang_up()

    def close(self) -> None:
        for one in self._sockets.values():
            one.close()

    async def _hang_up(self) -> None:
        """Let every conversation end by itself, because a cancelled one is an error to asyncio's streams."""
        for writer in self._talks.values():
            writer.transport.abort()
        if self._talks:
            await asyncio.wait(self._talks, timeout=SECONDS)

    async def answer(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hold one conversation. Raises nothing: whoever does not behave is closed."""
        task = asyncio.current_task()
        assert task is not None
        self.on_visit(door)
        if len(self._talks) >= MOST_CONNECTIONS:
            writer.close()
            return
        self._talks[task] = writer
        try:
            with suppress(TimeoutError, OSError, Malformed):
                async with asyncio.timeout(SECONDS):
                    await _converse(SENTENCES[door], reader, writer)
        except Exception:  # what a stranger sends ends their own conversation alone
            log.exception("a conversation with a driver ended by a bug", door=door)
        finally:
            del self._talks[task]
            writer.close()


class _Answering:
    """What :func:`asyncio.start_server` calls for each connection of one door."""

    def __init__(self, doorman: Doorman, door: Door) -> None:
        self._doorman = doorman
        self._door = door

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._doorman.answer(self._door, reader, writer)


async def _converse(sentence: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    requests, count = Reader(), 0
    while count < MOST_REQUESTS and (data := await reader.read(4096)):
        for request in requests.feed(data):
            count += 1
            if request.wants_answer:
                writer.write(answer(request, reply(request, sentence)))
        await writer.drain()


def reply(request: Request, sentence: str) -> Mapping[str, Any]:
    """Say hello, or what is wrong."""
    if request.command.lower() in _HELLO:
        return _GREETING
    return {"ok": 0.0, "errmsg": sentence, "code": _FAILED, "codeName": "AuthenticationFailed"}


def _listen(port: int) -> socket.socket:
    for choice in (port, 0):
        try:
            return socket.create_server((HOST, choice), backlog=MOST_CONNECTIONS)
        except OSError as error:
            if choice == 0:
                raise Broken(f"nothing can be listened on at {HOST}: {error.strerror}.") from None
            log.warning("the port of a door for MongoDB is taken; another is used from the next publication on",
                        port=choice)  # fmt: skip
    raise AssertionError


def _noted(path: Path) -> dict[Door, int]:
    """Read the ports; what is damaged or missing is chosen anew."""
    try:
        said = json.loads(path.read_bytes())
        found = {door: int(said[door]) for door in DOORS}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {door: port for door, port in found.items() if 0 < port < 65536}


def _note(path: Path, ports: Mapping[Door, int]) -> None:
    try:
        write_private(path, json.dumps(dict(ports)).encode())
    except OSError as error:
        raise Broken(f"{path} cannot be written: {error.strerror}.") from None
