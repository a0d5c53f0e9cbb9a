"""Agents that are connected and beat, thousands in one process: ``python -m bench.beating ADDRESS AGENTS SECONDS``.

Each is a TLS connection with the real WebSocket conversation: hello, a report for each document, heartbeats with
numbers, pongs. When all have been welcomed once, it says ``ready``; it ends with standard input.
"""

from __future__ import annotations

import base64
import json
import os
import random
import selectors
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.frames import Frame, Opcode

from bench.agents import HEADERS
from reconciler.web.agent_stream import PATH
from schemas.metrics import KEPT_OF_MACHINES
from schemas.session import SUBPROTOCOL

BATCH: Final = 32
"""Agents that beat before what came is read."""


@contextmanager
def beating(address: str, agents: int, seconds: float) -> Iterator[None]:
    """So many agents, connected until the block ends."""
    command = [sys.executable, "-m", "bench.beating", address, str(agents), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if process.stdout.readline() != "ready\n":
                raise SystemExit("the agents were not let in")
            yield
        finally:
            process.stdin.close()
            process.wait(30)


class _Agent:
    def __init__(self, name: str, host: str, port: int, tls: ssl.SSLContext) -> None:
        self.name = name
        self._sequence = 0
        self._data = bytearray()
        self._generation = 0
        self.socket = tls.wrap_socket(socket.create_connection((host, port), 60))
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(HEADERS.format(path=PATH, key=key, subprotocol=SUBPROTOCOL, name=name).encode())
        while b"\r\n\r\n" not in self._data:
            self._data += self.socket.recv(4096) or b"\r\n\r\n"
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            raise SystemExit(head.decode())
        self.say(type="hello", protocol=1, agent=name, version="bench")
        self.socket.setblocking(False)

    def say(self, **message: Any) -> None:  # noqa: ANN401 - JSON
        self._sequence += 1
        self._send(Opcode.TEXT, json.dumps({"sequence": self._sequence, **message}).encode())

    def beat(self, metrics: dict[str, float]) -> None:
        self.say(type="heartbeat", applied_generation=self._generation, metrics=metrics)

    def _send(self, opcode: Opcode, data: bytes) -> None:
        frame = Frame(opcode, data).serialize(mask=True)
        while True:
            try:
                self.socket.send(frame)
            except (ssl.SSLWantWriteError, BlockingIOError):
                time.sleep(0.001)
            else:
                return

    def read(self) -> bool:
        """Take what came, and answer it; False when the connection has ended."""
        try:
            while got := self.socket.recv(65536):
                self._data += got
        except (ssl.SSLWantReadError, BlockingIOError):
            for opcode, payload in self._frames():
                if opcode == Opcode.PING:
                    self._send(Opcode.PONG, payload)
                elif opcode == Opcode.CLOSE:
                    print(f"{self.name}: {payload!r}", file=sys.stderr)
                elif opcode == Opcode.TEXT:
                    self._heard(json.loads(payload))
            return True
        return False

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        data = self._data
        while len(data) >= 2:
            length, start = data[1] & 0x7F, 2
            if length >= 126:
                form, start = (">H", 4) if length == 126 else (">Q", 10)
                if len(data) < start:
                    return
                (length,) = struct.unpack(form, data[2:start])
            if len(data) < start + length:
                return
            yield data[0] & 0x0F, bytes(data[start : start + length])
            del data[: start + length]

    def _heard(self, message: dict[str, Any]) -> None:
        if message["type"] != "desired":
            return
        payload = message["jws"].split(".")[1]
        document = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        self._generation = document["generation"]
        items = [{"id": one["id"], "state": "Applied", "reason": "Running"} for one in document["items"]]
        said = {"generation": self._generation, "digest": document["digest"], "outcome": "applied", "items": items}
        self.say(type="report", **said)


def _main(address: str, agents: int, seconds: float) -> None:
    where = urlsplit(address)
    assert where.hostname is not None
    assert where.port is not None
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    selector, chance = selectors.DefaultSelector(), random.Random(1)
    machine = {name: 1e9 * chance.random() for name in KEPT_OF_MACHINES}
    selector.register(sys.stdin, selectors.EVENT_READ)
    turns = deque[tuple[float, _Agent]]()
    missing: Iterator[int] | None = iter(range(agents))
    while _look(selector, 0.0 if missing is not None else max(0.0, turns[0][0] - time.monotonic())):
        if missing is not None and (number := next(missing, None)) is not None:
            one = _Agent(f"vps-{number}", where.hostname, where.port, tls)
            selector.register(one.socket, selectors.EVENT_READ, one)
            turns.append((time.monotonic() + seconds, one))
        elif missing is not None:
            missing = None
            print("ready", flush=True)
        for _ in range(BATCH):
            due, one = turns[0]
            if due > time.monotonic():
                break
            one.beat({name: value * chance.random() for name, value in machine.items()})
            turns.popleft()
            turns.append((due + seconds, one))


def _look(selector: selectors.BaseSelector, seconds: float) -> bool:
    """Read from all that said something; False when standard input has ended."""
    for key, _ in selector.select(seconds):
        if key.data is None:
            return False
        if not key.data.read():
            raise SystemExit(f"the connection of {key.data.name} has ended")
    return True


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
