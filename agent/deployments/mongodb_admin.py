"""What the agent does in a database once mongod answers: its own user, everybody's, certificates, FCV, how it is.

All of it goes through TLS. The first user is made through mongod's localhost exception. It holds for the Unix socket,
which lies in a directory that nobody but the agent gets into, so nobody is there before it. From then on the agent
logs in at the port that everybody uses.

The name in the certificate is not compared, for the agent connects by address; whether it is the right mongod, and no
other of the fleet's, SCRAM says: only one that has the agent's user can answer for it (RFC 5802, 3, ServerSignature).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote_plus

from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError

from agent.deployments.mongodb_users import ADMIN, MECHANISM, WantedUser, changes
from schemas.mongodb_versions import CONFIRMED_SINCE, OLDEST, Series, series_of

log = logging.getLogger(__name__)
Client = AsyncMongoClient[dict[str, Any]]

_AUTHENTICATION_FAILED: Final = 18
_MECHANISM_UNAVAILABLE: Final = 334
"""mongod says so of a user that it does not know."""
_NOBODY: Final = frozenset({_AUTHENTICATION_FAILED, _MECHANISM_UNAVAILABLE})
_NO_SUCH_COMMAND: Final = 59
_SELECTION_MS: Final = 2000
_SOCKET_MS: Final = 20_000
_LONG_MS: Final = 600_000
_CLOSE_SECONDS: Final = 5.0
"""How long somebody who is in a hurry waits for connections to be closed."""


class AdminError(Exception):
    """Something could not be done in a database. The text is for people, without secrets."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a mongod is reached from this machine, and as whom. ``socket``: for the first login."""

    host: str
    port: int
    roots: Path
    socket: Path
    password: str = field(repr=False)


class Standing(NamedTuple):
    """What mongod says of itself."""

    version: str
    feature_version: str
    """Feature compatibility version of the data."""
    bytes: int
    """On the disk, of all databases."""


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Let out nothing but AdminError."""
    try:
        yield
    except OperationFailure as error:
        if error.code in _NOBODY:
            raise AdminError("NotTheAgents", _NOT_OURS) from None
        raise AdminError("Refused", f"mongod refused it: {_said(error)}.") from None
    except (PyMongoError, OSError) as error:
        raise AdminError("Unreachable", f"mongod does not answer: {_short(error)}.") from None


_NOT_OURS: Final = (
    "The database does not know the agent's user: its data was not made by this agent, or what the agent kept is lost. "
    "Restore a backup into a new deployment."
)


def _said(error: OperationFailure) -> str:
    details = error.details or {}
    return str(details.get("errmsg") or details.get("codeName") or error.code)[:300].rstrip(".")


def _short(error: Exception) -> str:
    """The driver's texts end in its whole configuration, which nobody wants to read."""
    return str(error).partition(" (configured")[0].partition(", Timeout:")[0][:200].rstrip(".") or type(error).__name__


@asynccontextmanager
async def login(where: Endpoint, *, socket_ms: int = _SOCKET_MS) -> AsyncIterator[Client]:
    """Log in as the agent's user. Raises what the driver raises, and OSError; see :func:`translated`."""
    await _knock(where)
    client: Client = AsyncMongoClient(
        where.host,
        where.port,
        username=ADMIN,
        password=where.password,
        authSource="admin",
        authMechanism=MECHANISM,
        **_options(where, socket_ms),
    )
    async with _closed_after(client):
        yield client


async def _knock(where: Endpoint) -> None:
    """Let the driver near only who answers: it leaves the socket open of a connection that it gives up.

    Raises:
        OSError: nobody answers.
    """
    async with asyncio.timeout(_SELECTION_MS / 1000):
        _, writer = await asyncio.open_connection(where.host, where.port)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def _closed_after(client: Client) -> AsyncIterator[None]:
    """Connect, and close in the end, each in a task of its own: the driver leaves the socket open of a connection that
    is cancelled while it is made, and swallows a cancellation that comes while it closes.
    """
    connecting = asyncio.create_task(client.admin.command("ping"), name="mongodb-connect")
    try:
        await asyncio.shield(connecting)
        yield
    finally:
        closing = asyncio.create_task(_close(client, connecting), name="mongodb-close")
        _CLOSING.add(closing)
        closing.add_done_callback(_CLOSING.discard)
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await asyncio.wait({closing}, timeout=_CLOSE_SECONDS)
            raise


async def _close(client: Client, connecting: asyncio.Task[dict[str, Any]]) -> None:
    await asyncio.wait({connecting}, timeout=_SELECTION_MS / 1000)
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    await client.close()


_CLOSING: Final[set[asyncio.Task[None]]] = set()
"""The loop itself keeps no task alive."""


def _options(where: Endpoint, socket_ms: int = _SOCKET_MS) -> dict[str, Any]:
    return {
        "tls": True,
        "tlsCAFile": str(where.roots),
        "tlsAllowInvalidHostnames": True,
        "directConnection": True,
        "serverMonitoringMode": "poll",  # else each login makes a third connection, and gives it up half made
        "retryWrites": False,
        "serverSelectionTimeoutMS": _SELECTION_MS,
        "connectTimeoutMS": _SELECTION_MS,
        "socketTimeoutMS": socket_ms,
        "appname": "cloudlunacy",
    }


async def ensure_admin(where: Endpoint) -> None:
    """Have the agent's own user. Harmless when it is there. Raises AdminError."""
    async with translated():
        try:
            async with login(where):
                return
        except OperationFailure as error:
            if error.code not in _NOBODY:
                raise
        await _first_login(where)
        async with login(where):
            pass


async def _first_login(where: Endpoint) -> None:
    with _short_path(where.socket) as path:
        client: Client = AsyncMongoClient(f"mongodb://{quote_plus(path)}", **_options(where))
        async with _closed_after(client):
            roles = [{"role": "root", "db": "admin"}]
            # refused where there are users already: the next login says whether ours is among them
            with suppress(OperationFailure):
                await client.admin.command("createUser", ADMIN, pwd=where.password, roles=roles, mechanisms=[MECHANISM])


@contextmanager
def _short_path(socket: Path) -> Iterator[str]:
    """Give another name to a socket: the kernel takes 107 bytes (unix(7)), and directories may be deep."""
    descriptor = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{socket.name}"
    finally:
        os.close(descriptor)


async def ping(where: Endpoint) -> None:
    """Log in through TLS and ask whether it is writable. Raises AdminError."""
    async with translated(), login(where) as client:
        hello = await client.admin.command("hello")
    if not hello.get("isWritablePrimary"):
        raise AdminError("NotWritable", "mongod answers, and takes no writes.")


async def standing(where: Endpoint) -> Standing:
    """Raises AdminError."""
    async with translated(), login(where) as client:
        built = await client.admin.command("buildInfo")
        asked = await client.admin.command({"getParameter": 1, "featureCompatibilityVersion": 1})
        listed = await client.admin.command({"listDatabases": 1})
    feature = asked["featureCompatibilityVersion"]
    return Standing(str(built["version"]), str(feature["version"]), int(listed.get("totalSize", 0)))


async def raise_feature_version(where: Endpoint, version: str) -> None:
    """Let the data take what the release of ``version`` can do; from then on no older one opens it.

    Raises:
        AdminError
    """
    wanted = Series(*series_of(version))
    command: dict[str, Any] = {"setFeatureCompatibilityVersion": str(wanted)}
    if wanted >= CONFIRMED_SINCE:
        command["confirm"] = True
    async with translated(), login(where, socket_ms=_LONG_MS) as client:
        await client.admin.command(command)


async def set_users(where: Endpoint, wanted: Sequence[WantedUser]) -> int:
    """Have exactly these users beside the agent's own; return how many changes that took. Raises AdminError."""
    async with translated(), login(where) as client:
        found = [one async for one in client.admin["system.users"].find()]
        todo = await asyncio.to_thread(changes, wanted, found)  # comparing passwords takes their time
        for change in todo:
            await client[change.database].command(change.command)
    return len(todo)


async def rotate_certificates(where: Endpoint) -> None:
    """Have mongod read its certificate and roots again; connections that are open go on. Raises AdminError."""
    async with translated(), login(where) as client:
        try:
            await client.admin.command({"rotateCertificates": 1, "message": "renewed"})
        except OperationFailure as error:
            if error.code != _NO_SUCH_COMMAND:
                raise
            log.warning("a mongod before %s takes its new certificate when it is restarted", OLDEST)


async def locked(client: Client) -> bool:
    found = await client.admin.command({"currentOp": 1})
    return bool(found.get("fsyncLock"))


async def unlock(where: Endpoint) -> bool:
    """Take away a lock that a backup left behind which was cut off; True where there was one. Raises AdminError."""
    async with translated(), login(where) as client:
        if not await locked(client):
            return False
        while await locked(client):  # locks are counted
            await client.admin.command({"fsyncUnlock": 1})
    return True
