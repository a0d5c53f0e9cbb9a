"""What the hub costs: a message to many agents against raw frames, an idle agent against Starlette's bare WebSocket.

Both sides of a row are measured in the same run. The clients live in a process of their own; they say hello and read
what comes. ``python -m bench.agents`` prints both measurements as JSON; the runner calls :func:`measure_fanout` and
:func:`measure_memory`.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.frames import Frame, Opcode

from reconciler.agents.delivery import Wanted
from reconciler.agents.documents import WantedDocument
from reconciler.agents.hub import Hub, HubLimits
from reconciler.agents.session import SessionLimits
from reconciler.web.agent_stream import PATH, AgentStream
from reconciler.web.websocket import WebSocketProtocol
from schemas.session import (
    SUBPROTOCOL,
    CommandOutput,
    Heartbeat,
    Hello,
    Item,
    Observation,
    Report,
    Usage,
    digest_of,
    digest_of_items,
)

MESSAGE = 1024
"""Bytes of the message that is sent to everybody."""
ROUNDS = 15
WARM_UP = 100
"""Connections after which memory is first looked at: what the program needs once is not an agent's."""
HEADERS = (
    "GET {path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {subprotocol}\r\nAuthorization: Test {name}\r\n\r\n"
)


@dataclass(frozen=True)
class _Identity:
    name: str
    kind: str = "agent"
    thumbprint: str = ""


class _Believer:
    def authenticate(self, method: str, url: str, headers: Mapping[str, str], now: float) -> _Identity:  # noqa: ARG002
        return _Identity(headers["authorization"].removeprefix("Test "))


class _Nobody:
    """An observer that looks away."""

    def connected(self, name: str, hello: Hello, now: float) -> None: ...

    def disconnected(self, name: str, reason: str, now: float) -> None: ...

    def reported(self, name: str, report: Report, now: float) -> None: ...

    def heartbeat(self, name: str, heartbeat: Heartbeat, now: float) -> None: ...

    def features(self, name: str, features: frozenset[str], now: float) -> None: ...

    def observation(self, name: str, observation: Observation, now: float) -> None: ...

    def usage(self, name: str, usage: Usage, now: float) -> None: ...

    def command_output(self, name: str, output: CommandOutput, now: float) -> None: ...


class _Signer:
    """ES256, as in production."""

    def __init__(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  only this measurement needs it

        self._key = ec.generate_private_key(ec.SECP256R1())

    def sign(self, payload: bytes, *, typ: str) -> str:
        import jwt  # noqa: PLC0415

        return jwt.PyJWS().encode(payload, self._key, algorithm="ES256", headers={"typ": typ, "kid": "bench"})


def _hub(signer: _Signer | None = None) -> Hub:
    session = SessionLimits(hello_seconds=600, silence_seconds=3600, heartbeat_seconds=1800)
    limits = HubLimits(session=session, admissions_per_second=1e6, admission_burst=10**6)
    return Hub(signer or _Signer(), lambda _name, _thumbprint: True, _Nobody(), limits=limits)


async def _bare(websocket: WebSocket) -> None:
    await websocket.accept(SUBPROTOCOL)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        return


@asynccontextmanager
async def _serving(app: Starlette, protocol: type[asyncio.Protocol] | str) -> AsyncIterator[uvicorn.Server]:
    config = uvicorn.Config(
        app,
        port=0,
        ws=protocol,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        backlog=4096,
        log_level="error",
        lifespan="off",
        access_log=False,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(), name="uvicorn")
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server
    finally:
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        server.should_exit = True
        await task


def _port(server: uvicorn.Server) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


# Fan-out.


def measure_fanout(n: int = 2000) -> dict[str, Any]:
    """Return µs for each of ``n`` agents: raw frames, a ready document through the hub, and publishing with signing."""
    return asyncio.run(_fanout(n))


async def _fanout(n: int) -> dict[str, Any]:
    hub = _hub()
    app = Starlette(routes=[WebSocketRoute(PATH, AgentStream(hub, _Believer()))])
    times: dict[str, list[float]] = {"raw": [], "hub": [], "signed": []}
    async with _serving(app, WebSocketProtocol) as server:
        with _clients(_port(server), n, "hello"):
            while len(hub.connected) < n:
                await asyncio.sleep(0.05)
            transports = [connection.transport for connection in server.server_state.connections]
            for generation in range(1, ROUNDS + 1):
                times["raw"].append(await _timed(_raw(transports), transports, n))
                times["hub"].append(await _timed(_ready(hub, 2 * generation), transports, n))
                times["signed"].append(await _timed(_published(hub, 2 * generation + 1, n), transports, n))
    floor, through, signed = (statistics.median(times[name][2:]) for name in ("raw", "hub", "signed"))
    return {
        "agents": n,
        "raw_us": round(floor, 2),
        "hub_us": round(through, 2),
        "hub_with_signing_us": round(signed, 2),
        "ratio": round(through / floor, 3),
        "target": 2.0,
    }


async def _timed(work: Coroutine[Any, Any, None], transports: list[Any], n: int) -> float:
    """Return µs for each agent; afterwards everything has left the transports and the clients are idle again."""
    gc.collect()
    began = time.perf_counter()
    await work
    took = time.perf_counter() - began
    while any(transport.get_write_buffer_size() for transport in transports):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    return took / n * 1e6


async def _raw(transports: list[Any]) -> None:
    frame = Frame(Opcode.TEXT, b"x" * MESSAGE).serialize(mask=False)
    for transport in transports:
        transport.write(frame)


async def _ready(hub: Hub, generation: int) -> None:
    """A document that is signed already: what the session decides, and the way to the transport."""
    jws = "x" * MESSAGE
    wanted = Wanted(generation, digest_of(generation), lambda: jws)
    for member in list(hub._members.values()):  # noqa: SLF001  there is no other way in behind the signature
        hub._feed(member, wanted)  # noqa: SLF001


async def _published(hub: Hub, generation: int, n: int) -> None:
    spec = {"image": f"web:{generation}", "environment": "x" * (MESSAGE // 2)}
    items = (Item(id="Deployment/shop/web", kind="Deployment", digest=digest_of(spec), spec=spec),)
    document = WantedDocument(generation, "a" * 40, digest_of_items(items), lambda: items)
    await hub.publish({f"agent-{number}": document for number in range(n)})


# Memory.


def measure_memory(n: int = 2000) -> dict[str, Any]:
    """Return KiB of private memory for each idle agent, bare and in the hub."""
    bare, hub = (_memory_of(kind, n) for kind in ("bare", "hub"))
    return {
        "agents": n,
        "bare_kib": round(bare, 2),
        "hub_kib": round(hub, 2),
        "ratio": round(hub / bare, 3),
        "target": 1.5,
    }


def _memory_of(kind: str, n: int) -> float:
    command = [sys.executable, "-m", "bench.agents", "serve", kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        port = int(server.stdout.readline())
        say = "hello" if kind == "hub" else "nothing"

        def memory() -> float:
            assert server.stdin is not None
            assert server.stdout is not None
            print("memory", file=server.stdin, flush=True)
            return float(server.stdout.readline())

        with _clients(port, WARM_UP, say, "warm"):
            before = memory()
            with _clients(port, n, say):
                after = memory()
        server.stdin.close()
        server.wait(30)
    return (after - before) / n


async def _serve(kind: str) -> None:
    """Serve until stdin ends; answer each line with the KiB of private memory."""
    if kind == "bare":
        app, protocol = Starlette(routes=[WebSocketRoute(PATH, _bare)]), "websockets-sansio"
    else:
        app = Starlette(routes=[WebSocketRoute(PATH, AgentStream(_hub(), _Believer()))])
        protocol = WebSocketProtocol  # type: ignore[assignment]
    async with _serving(app, protocol) as server:
        print(_port(server), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            await asyncio.sleep(1.0)
            gc.collect()
            print(_private_kib(), flush=True)


def _private_kib() -> int:
    with open("/proc/self/smaps_rollup") as rollup:  # noqa: PTH123
        return sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))


# Clients.


@contextmanager
def _clients(port: int, n: int, say: str, prefix: str = "agent") -> Iterator[None]:
    """``n`` connected clients in a process of their own, which read until the block ends."""
    command = [sys.executable, "-m", "bench.agents", "clients", str(port), str(n), say, prefix]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        try:
            yield from _until_ready(process)
        finally:
            process.stdin.close()
            process.wait(30)


def _until_ready(process: subprocess.Popen[str]) -> Iterator[None]:
    # In the fan-out the server runs in this process, so its loop must go on: readiness is seen in the hub instead.
    assert process.stdout is not None
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        process.stdout.readline()
    yield


def _be_clients(port: int, n: int, say: str, prefix: str) -> None:
    selector = selectors.DefaultSelector()
    for number in range(n):
        selector.register(_connect(port, f"{prefix}-{number}", say), selectors.EVENT_READ)
    print("ready", flush=True)
    selector.register(sys.stdin, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                return
            if not key.fileobj.recv(65536):  # type: ignore[union-attr]
                selector.unregister(key.fileobj)


def _connect(port: int, name: str, say: str) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port))
    key = base64.b64encode(os.urandom(16)).decode()
    peer.sendall(HEADERS.format(path=PATH, key=key, subprotocol=SUBPROTOCOL, name=name).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += peer.recv(4096)
    if b" 101 " not in head.split(b"\r\n", 1)[0]:
        raise SystemExit(head.decode())
    if say == "hello":
        hello = {"type": "hello", "sequence": 1, "protocol": 1, "agent": name, "version": "bench"}
        peer.sendall(Frame(Opcode.TEXT, json.dumps(hello).encode()).serialize(mask=True))
        peer.recv(4096)
    return peer


def _main(arguments: list[str]) -> None:
    match arguments:
        case ["clients", port, n, say, prefix]:
            _be_clients(int(port), int(n), say, prefix)
        case ["serve", kind]:
            asyncio.run(_serve(kind))
        case _:
            print(json.dumps({"fanout": measure_fanout(), "memory": measure_memory()}, indent=2))


if __name__ == "__main__":
    _main(sys.argv[1:])
