"""A real ACME server (Pebble) on free loopback ports, a name server for every name, and what may stand in between.

Pebble forgets everything when it ends: accounts, orders, its own root. :class:`Middle` stands in front of it and does
what Pebble never does: it refuses for being busy, suggests renewals, goes silent in the middle of an order.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.parts import require
from tests.support.ports import free_port
from tests.support.waiting import eventually, wait_for

START_SECONDS: Final = 30.0
"""For whatever a busy machine may take its time with."""


@dataclass(frozen=True)
class ServerFiles:
    """What a TLS server on 127.0.0.1 needs, and what its clients trust it by."""

    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path, *, expired: bool = False) -> ServerFiles:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ACME server of the tests")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + timedelta(days=-1 if expired else 1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .sign(key, hashes.SHA256())
        )
        files = cls(folder / "server.pem", folder / "server-key.pem")
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files


class HeldPort:
    """A port that nobody else gets while nothing listens on it, as the port of a connection of theirs neither."""

    def __init__(self) -> None:
        self.number = 0
        self.hold()

    def hold(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", self.number))
        self.number = int(self._socket.getsockname()[1])

    def hand_over(self) -> socket.socket:
        """Return the socket; whoever has it closes it, and the port is held again afterwards."""
        return self._socket

    def close(self) -> None:
        self._socket.close()


class Program:
    """A child process in a group of its own, with a log."""

    def __init__(self, log: Path, arguments: list[str | Path], environment: Mapping[str, str]) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class NameServer:
    """pebble-challtestsrv: answers 127.0.0.1 for every name."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        management = free_port()
        program = require("pebble-challtestsrv")
        off = ["-http01", "", "-https01", "", "-tlsalpn01", ""]
        on = ["-dns01", f"127.0.0.1:{self.port}", "-management", f"127.0.0.1:{management}", "-defaultIPv6", ""]
        self._program = Program(folder / "challtestsrv.log", [program, *off, *on], {})
        self._url = f"http://127.0.0.1:{management}"
        wait_for(self._answers, START_SECONDS, what=f"pebble-challtestsrv\n{self._program.log()}")

    def _answers(self) -> bool:
        assert self._program.running(), self._program.log()
        with suppress(httpx.HTTPError):
            return self.tell("clear-txt", host="nothing.test.").status_code == 200
        return False

    def tell(self, what: str, **words: str) -> httpx.Response:
        return httpx.post(f"{self._url}/{what}", json=words, trust_env=False)

    def set_txt(self, record: str, value: str) -> None:
        assert self.tell("set-txt", host=f"{record}.", value=value).status_code == 200

    def close(self) -> None:
        self._program.kill()


class Pebble:
    """A running Pebble.

    ``nonce_reject``: percent of good nonces that it refuses. ``lifetime`` of certificates in seconds. ``external``: the
    accounts, as key id and MAC key, without one of which it registers nobody. ``http_port``: where it looks for answers
    of http-01, if somebody else listens there. ``sleep``: seconds that it dawdles at the most before it looks.
    """

    def __init__(
        self,
        folder: Path,
        *,
        resolver_port: int,
        nonce_reject: int = 0,
        lifetime: int = 86400,
        external: Mapping[str, str] | None = None,
        http_port: int | None = None,
        sleep: int = 0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.http_port = HeldPort()
        self.port = free_port()
        self._management = free_port()
        self._folder = folder
        self.files = ServerFiles.make(folder)
        self._resolver_port = resolver_port
        self._environment = {
            **({"PEBBLE_VA_SLEEPTIME": str(sleep)} if sleep else {"PEBBLE_VA_NOSLEEP": "1"}),
            "PEBBLE_WFE_NONCEREJECT": str(nonce_reject),
            "PEBBLE_AUTHZREUSE": "0",
        }
        self._config = folder / "pebble.json"
        config = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": str(self.files.certificate),
            "privateKey": str(self.files.key),
            "httpPort": http_port or self.http_port.number,
            "tlsPort": free_port(),
            "certificateValidityPeriod": lifetime,
            "externalAccountBindingRequired": external is not None,
            "externalAccountMACKeys": external or {},
        }
        self._config.write_text(json.dumps({"pebble": config}))
        self.start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/dir"

    def start(self) -> None:
        resolver = f"127.0.0.1:{self._resolver_port}"
        self._program = Program(
            self._folder / "pebble.log",
            [require("pebble"), "-config", self._config, "-strict", "-dnsserver", resolver],
            self._environment,
        )
        wait_for(self._answers, START_SECONDS, what=f"Pebble\n{self.log()[-2000:]}")

    def kill(self) -> None:
        self._program.kill()

    def close(self) -> None:
        self.kill()
        self.http_port.close()

    def log(self) -> str:
        return self._program.log()

    def root(self) -> str:
        """PEM; another one after each start."""
        return self._get(f"https://127.0.0.1:{self._management}/roots/0").text

    def _answers(self) -> bool:
        assert self._program.running(), self.log()[-2000:]
        with suppress(httpx.HTTPError):
            return self._get(self.url).status_code == 200
        return False

    def _get(self, url: str) -> httpx.Response:
        context = ssl.create_default_context(cafile=str(self.files.certificate))
        return httpx.get(url, verify=context, trust_env=False, timeout=START_SECONDS)


@contextmanager
def pebble(folder: Path, **options: Any) -> Iterator[Pebble]:
    """Run a Pebble that finds every name at 127.0.0.1."""
    folder.mkdir(parents=True, exist_ok=True)
    names = NameServer(folder)
    try:
        running = Pebble(folder, resolver_port=names.port, **options)
        try:
            yield running
        finally:
            running.close()
    finally:
        names.close()


Meddle = Callable[[str, str], tuple[int, Mapping[str, str], bytes] | None]
"""Takes method and path; returns status, headers and body to answer instead of Pebble, or None."""


@dataclass
class Middle:
    """A TLS server in front of Pebble. ``meddle`` may answer in its place; ``directory`` adds to the directory."""

    behind: Pebble
    files: ServerFiles
    port: int
    meddle: Meddle = lambda *_: None
    headers: Callable[[str], Mapping[str, str]] = lambda _: {}
    """Takes the path; returns headers that are added to Pebble's answer."""
    directory: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    """``METHOD path`` of each request, in order."""
    bodies: list[Any] = field(default_factory=list)
    """The JWS of each POST."""

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/dir"

    def payloads(self) -> list[Any]:
        """What was signed in each POST that said something."""
        encoded = [str(body["payload"]) for body in self.bodies]
        return [json.loads(urlsafe_b64decode(one + "=" * (-len(one) % 4))) for one in encoded if one]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        method, path = scope["method"], scope["path"]
        self.seen.append(f"{method} {path}")
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if body:
            self.bodies.append(json.loads(body))
        status, headers, content = self.meddle(method, path) or await self._ask(method, path, scope["headers"], body)
        if path == "/dir" and status == 200 and self.directory:
            content = json.dumps({**json.loads(content), **self.directory}).encode()
        raw = [(name.encode(), value.encode()) for name, value in headers.items() if name != "content-length"]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": content})

    async def _ask(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        context = ssl.create_default_context(cafile=str(self.behind.files.certificate))
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=START_SECONDS) as client:
            # Pebble makes its URLs from the Host that it is asked for, and checks that of the request against it
            sent = {name.decode(): value.decode() for name, value in headers}
            answer = await client.request(
                method, f"https://127.0.0.1:{self.behind.port}{path}", headers=sent, content=body
            )
        return answer.status_code, {**answer.headers, **self.headers(path)}, answer.content


@asynccontextmanager
async def middle(folder: Path, behind: Pebble, *, expired: bool = False) -> AsyncIterator[Middle]:
    """Run a :class:`Middle`."""
    folder.mkdir(parents=True, exist_ok=True)
    one = Middle(behind, ServerFiles.make(folder, expired=expired), free_port())
    async with serving(one, one.port, one.files):
        yield one


@asynccontextmanager
async def serving(app: Any, port: HeldPort | int, files: ServerFiles | None = None) -> AsyncIterator[None]:
    """Serve an ASGI application on 127.0.0.1, over TLS with ``files``."""
    tls = {} if files is None else {"ssl_certfile": files.certificate, "ssl_keyfile": files.key}
    number = port if isinstance(port, int) else port.number
    config = uvicorn.Config(app, host="127.0.0.1", port=number, log_config=None, lifespan="off", **tls)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    sockets = None if isinstance(port, int) else [port.hand_over()]
    task = asyncio.create_task(server.serve(sockets), name=f"server on {number}")
    try:
        await eventually(lambda: server.started or task.done(), START_SECONDS, what="the server")
        assert server.started
        yield
    finally:
        server.should_exit = True
        await task
        if isinstance(port, HeldPort):
            port.close()
            port.hold()
