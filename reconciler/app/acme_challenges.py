"""Where ACME servers find the control plane's answers: a listener of its own, and the look whether fronts lead there.

The listener speaks plain HTTP on loopback, and nothing but the tokens that are presented at the moment answers there.
Fronts reach it through the reserved routers of :mod:`reconciler.desired.challenge_path`. Its port is in the fronts'
files, so the one that was used last is taken again where it can be.

A server that looks before the routers are loaded, or past a redirect that a front makes, counts a failed attempt, and
few of these are allowed. So each answer is looked for at every front before the server is told to look.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import httpx

from reconciler.errors import Broken, CloudLunacyError, Transient
from reconciler.observability.logs import get_logger
from reconciler.pki.acme.http01 import PREFIX, Http01
from reconciler.pki.acme.solver import Challenge, ChallengeType
from reconciler.pki.private_files import write_private
from reconciler.traefik.api import TraefikAPI
from reconciler.web.server import listen, make_server
from schemas.fleet import Fleet
from schemas.text import visible

log = get_logger(__name__)

LOOPBACK: Final = "127.0.0.1"
PORT_FILE: Final = "acme-http-port"
"""In the data directory: the port that was used last."""
CLOSING_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 0.2
MAX_ANSWER: Final = 4096


class ChallengeListener:
    """The listener. ``port`` 0: the one that was used last, or a free one.

    Raises:
        Broken: when the port is taken.
    """

    def __init__(self, data: Path, port: int) -> None:
        self.table = Http01()
        self._socket = _bind(data, port)
        self.url = f"http://{LOOPBACK}:{self._socket.getsockname()[1]}"
        """What fronts are told."""

    async def run(self) -> None:
        """Answer until cancelled."""
        server = make_server(self.table)
        serving = asyncio.create_task(server.serve(sockets=[self._socket]), name="acme challenges")
        try:
            await asyncio.shield(serving)
        finally:
            server.should_exit = True
            await asyncio.wait([serving], timeout=CLOSING_SECONDS)

    def close(self) -> None:
        """Let the port go."""
        self._socket.close()


def _bind(data: Path, port: int) -> socket.socket:
    if port:
        try:
            return listen(LOOPBACK, port)
        except Broken as error:
            raise Broken(error.message, hint="Is it taken? Use --acme-http-port.") from None
    path = data / PORT_FILE
    with contextlib.suppress(OSError, ValueError, Broken):
        former = int(path.read_text(encoding="ascii"))
        if 0 < former < 65536:
            return listen(LOOPBACK, former)
    found = listen(LOOPBACK, 0)
    try:
        write_private(path, f"{found.getsockname()[1]}\n".encode())
    except OSError as error:
        found.close()
        raise Broken(f"{path} cannot be written: {error.strerror}.") from None
    return found


class ChallengeFront(NamedTuple):
    """A front that must lead to the listener."""

    name: str
    api: TraefikAPI


class FrontedHttp01:
    """A solver: the table, and the look whether every front shows what is in it.

    ``seconds``: until a front that was given the routers just now has loaded them.
    """

    type: Final[ChallengeType] = "http-01"

    def __init__(
        self,
        table: Http01,
        fronts: Sequence[ChallengeFront],
        fleet: Callable[[], Fleet | None],
        *,
        seconds: float,
    ) -> None:
        self._table = table
        self._fronts = fronts
        self._fleet = fleet
        self._seconds = seconds

    async def present(self, challenge: Challenge) -> None:
        """Answer the token, and return once every front does.

        Raises:
            Transient: one does not.
        """
        await self._table.present(challenge)
        fleet = self._fleet()
        if fleet is None or not self._fronts:
            return
        async with httpx.AsyncClient(
            verify=_unverified(), trust_env=False, follow_redirects=False, timeout=LOOK_SECONDS
        ) as client:
            await asyncio.gather(*(self._until_shown(client, front, fleet, challenge) for front in self._fronts))

    async def cleanup(self, challenge: Challenge) -> None:
        """Answer no more."""
        await self._table.cleanup(challenge)

    async def _until_shown(
        self, client: httpx.AsyncClient, front: ChallengeFront, fleet: Fleet, challenge: Challenge
    ) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._seconds
        while why := await _why_not(client, front.api, fleet, challenge):
            if loop.time() > end:
                raise Transient(
                    f'The front "{front.name}" does not lead {PREFIX} of {challenge.domain} to this control plane: '
                    f"{why}.",
                    reason="ChallengeNotServed",
                    hint="Until it does, an ACME server would find nothing there either.",
                )
            await asyncio.sleep(PAUSE_SECONDS)


async def _why_not(client: httpx.AsyncClient, api: TraefikAPI, fleet: Fleet, challenge: Challenge) -> str:
    """Look once, where the ACME server will look too; "" when it is there. One redirect to https is followed."""
    points = fleet.spec.entry_points
    answer = ""
    try:
        for point, scheme in ((points.http, "http"), (points.https, "https")):
            address = await api.entry_point(point)
            if address is None:
                return f'it has no entry point "{point}"'
            status, body, location = await _get(client, scheme, address, challenge)
            if status == 200 and body == challenge.key_authorization.encode():
                return ""
            answer = f"it answers with status {status}"
            to = urlsplit(location)
            if to.scheme != "https" or to.hostname != challenge.domain:
                return f"it sends everybody to {visible(location)[:200]}" if location else answer
    except (CloudLunacyError, httpx.HTTPError, ValueError) as error:
        return visible(str(error) or type(error).__name__)[:300].rstrip(".")
    return f"{answer} after a redirect to https"


async def _get(
    client: httpx.AsyncClient, scheme: str, address: tuple[str, int], challenge: Challenge
) -> tuple[int, bytes, str]:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    async with client.stream(
        "GET",
        f"{scheme}://{host}:{address[1]}{PREFIX}{challenge.token}",
        headers={"Host": challenge.domain, "Accept-Encoding": "identity"},
        extensions={"sni_hostname": challenge.domain},
    ) as response:
        body = b""
        async for part in response.aiter_raw():
            body += part
            if len(body) > MAX_ANSWER:
                break
        return response.status_code, body, response.headers.get("Location", "")


def _unverified() -> ssl.SSLContext:
    """ACME servers do not look at the certificate behind a redirect either: it is the one that is to be replaced."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
