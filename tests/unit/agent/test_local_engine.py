"""The container engine of a machine: whether one is there, and what is said where none is."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from agent.deployments.driver import DriverAbsent, DriverError
from agent.deployments.firewall import NoFirewall
from agent.deployments.local_engine import LocalEngine, absence
from tests.support.waiting import eventually

NOBODY = 65534


def said_of(path: Path) -> DriverError:
    """What is said when the engine at a socket is asked what there is."""

    async def ask() -> DriverError:
        engine = LocalEngine(path, "vps-1", firewall=NoFirewall())
        try:
            with pytest.raises(DriverError) as raised:
                await engine.observe()
        finally:
            await engine.close()
        return raised.value

    return asyncio.run(ask())


def listening(path: Path) -> closing[socket.socket]:
    found = socket.socket(socket.AF_UNIX)
    found.bind(str(path))
    found.listen()
    return closing(found)


@contextmanager
def somebody_else() -> Iterator[None]:
    """Be a user who may not do everything."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_no_socket_is_no_engine(tmp_path: Path) -> None:
    """Nothing was ever installed there."""
    said = said_of(tmp_path / "engine.sock")
    assert isinstance(said, DriverAbsent)
    assert said.message == f"There is no container engine at {tmp_path}/engine.sock."
    assert not said.may_come_back


def test_a_socket_at_which_nobody_listens_is_no_engine(tmp_path: Path) -> None:
    """An engine that was stopped leaves its file behind."""
    path = tmp_path / "engine.sock"
    with listening(path):
        pass
    said = said_of(path)
    assert isinstance(said, DriverAbsent)
    assert said.message == f"No container engine listens at {path}."
    assert said.may_come_back


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_socket_that_this_user_may_not_open_is_no_engine_of_this_user(tmp_path: Path) -> None:
    """Who is not in the engine's group is told so."""
    path = tmp_path / "engine.sock"
    with listening(path):
        path.chmod(0o600)
        with somebody_else():
            said = absence(path)
        assert said is not None
        assert said.message == f"The container engine at {path} may not be used by this user."
        assert absence(path) is None


def test_an_engine_that_does_not_answer_is_away(tmp_path: Path) -> None:
    """Somebody listens there, and what runs may go on running."""

    async def scenario() -> None:
        path = tmp_path / "engine.sock"
        server = await asyncio.start_unix_server(lambda _, writer: writer.close(), path)
        engine = LocalEngine(path, "vps-1", firewall=NoFirewall())
        try:
            with pytest.raises(DriverError, match="does not answer") as raised:
                await engine.observe()
            assert not isinstance(raised.value, DriverAbsent)
        finally:
            await engine.close()
            server.close()
            await server.wait_closed()

    asyncio.run(scenario())


def test_an_engine_that_begins_to_listen_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is told of a file that nobody listens at; then it is looked at anew."""
    monkeypatch.setattr("agent.deployments.local_engine._LOOK_SECONDS", 0.01)

    async def scenario() -> None:
        path, told = tmp_path / "engine.sock", list[bool]()
        with listening(path):
            pass
        engine = LocalEngine(path, "vps-1", firewall=NoFirewall())
        looked = asyncio.Event()

        def look(path: Path) -> DriverAbsent | None:
            looked.set()
            return absence(path)

        monkeypatch.setattr("agent.deployments.local_engine.absence", look)
        watch = asyncio.create_task(engine.watch(lambda: told.append(True)))
        try:
            await looked.wait()
            assert told == []
            path.unlink()
            with listening(path):
                await eventually(lambda: bool(told))
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await engine.close()

    asyncio.run(scenario())
