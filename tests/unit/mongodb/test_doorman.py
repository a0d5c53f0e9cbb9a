"""The doorman as the real driver meets it, and as somebody who is no driver does."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from reconciler.desired.doors import DOORS, Door
from reconciler.mongodb import doorman as module
from reconciler.mongodb.doorman import FILE_NAME, HOST, SENTENCES, Doorman
from tests.support.waiting import eventually


def attended(doorman: Doorman, visit: Callable[[], None]) -> None:
    """Let ``visit``, which blocks, meet the doorman."""

    async def scenario() -> None:
        serving = asyncio.create_task(doorman.run())
        try:
            await asyncio.to_thread(visit)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(scenario())


def asked(port: int, **more: Any) -> str:
    """What the driver says to an application that inserts a document. Its time-out is far away."""
    with (
        MongoClient(HOST, port, serverSelectionTimeoutMS=60_000, **more) as client,
        pytest.raises(OperationFailure) as caught,
    ):
        client.shop.orders.insert_one({"n": 1})
    return str(caught.value)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("credentials", [{}, {"username": "shop", "password": "secret"}])
@pytest.mark.parametrize("direct", [True, False])
def test_a_driver_says_the_sentence(tmp_path: Path, door: Door, credentials: dict[str, str], direct: bool) -> None:
    """At once, whether it authenticates or not, and whether it looks for a replica set or not."""
    doorman = Doorman.open(tmp_path)
    found: list[str] = []
    attended(doorman, lambda: found.append(asked(doorman.ports[door], directConnection=direct, **credentials)))
    assert found[0].startswith(SENTENCES[door])


def test_ports_stay(tmp_path: Path) -> None:
    """After a restart the doors are where the fronts look for them; what is damaged is chosen anew."""
    first = Doorman.open(tmp_path)
    ports = first.ports
    first.close()
    second = Doorman.open(tmp_path)
    assert second.ports == ports
    third = Doorman.open(tmp_path)  # while the second holds the ports
    assert set(third.ports.values()).isdisjoint(ports.values())
    assert json.loads((tmp_path / FILE_NAME).read_bytes()) == third.ports
    third.close()
    second.close()
    (tmp_path / FILE_NAME).write_text('{"plain": "x"}')
    Doorman.open(tmp_path).close()


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 16, b"\x00" * 16])
def test_who_speaks_something_else_is_closed(tmp_path: Path, data: bytes) -> None:
    """Without a word."""
    doorman = Doorman.open(tmp_path)
    answers: list[bytes] = []

    def visit() -> None:
        with socket.create_connection((HOST, doorman.ports["plain"]), timeout=10) as connection:
            connection.sendall(data)
            answers.append(connection.recv(100))

    attended(doorman, visit)
    assert answers == [b""]


def test_whoever_is_there_when_it_ends_is_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without an error in the log."""
    doorman = Doorman.open(tmp_path)

    async def scenario() -> bytes:
        serving = asyncio.create_task(doorman.run())
        await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(HOST, doorman.ports["plain"])
        writer.write(b"\x30\0\0\0")
        await eventually(lambda: bool(doorman._talks), 10)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        try:
            return await reader.read(1)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    assert asyncio.run(scenario()) == b""
    assert caplog.records == []


def test_nobody_stays_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says nothing is closed, and who comes when it is full is closed at once."""
    monkeypatch.setattr(module, "SECONDS", 0.1)
    doorman = Doorman.open(tmp_path)
    heard: list[bytes] = []

    def visit() -> None:
        address = (HOST, doorman.ports["plain"])
        with socket.create_connection(address, timeout=10) as silent:
            heard.append(silent.recv(1))
        monkeypatch.setattr(module, "MOST_CONNECTIONS", 0)
        monkeypatch.setattr(module, "SECONDS", 60.0)
        with socket.create_connection(address, timeout=10) as late:
            heard.append(late.recv(1))

    attended(doorman, visit)
    assert heard == [b"", b""]
