"""Whoever installs an agent sees when it is connected, and systemd hears of it."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from agent.presence import FILE_NAME, Presence, connected_since
from tests.support.waiting import eventually


def test_the_file_is_there_while_a_connection_stands(tmp_path: Path) -> None:
    """It says since when and with which version; one that a killed agent left says nothing."""
    presence = Presence(tmp_path, "1.2.0", {})
    presence(False)
    assert connected_since(tmp_path) is None
    before = time.time()
    presence(True)
    found = connected_since(tmp_path)
    assert found is not None
    assert before - 0.01 <= found[0] <= time.time() + 0.01
    assert found[1] == "1.2.0"
    presence(False)
    assert not (tmp_path / FILE_NAME).exists()


@pytest.mark.parametrize("text", ["", "now", "1.0 999999999 1.2.0\n", "1.0 x 1.2.0\n"])
def test_a_file_that_nobody_keeps_says_nothing(tmp_path: Path, text: str) -> None:
    """Whatever stands in it."""
    (tmp_path / FILE_NAME).write_text(text)
    assert connected_since(tmp_path) is None


def test_systemd_is_told(tmp_path: Path) -> None:
    """Ready, with the state of the connection, and that the loop goes on as often as the unit wants it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.setblocking(False)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000"}
        presence = Presence(tmp_path, "1.2.0", environment)
        presence(False)
        assert channel.recv(200).startswith(b"READY=1\nSTATUS=Not connected")
        presence(True)
        assert channel.recv(200) == b"READY=1\nSTATUS=Connected."

        async def scenario() -> None:
            task = asyncio.create_task(presence.run())
            heard = []

            def listen() -> bool:
                try:
                    heard.append(channel.recv(200))
                except BlockingIOError:
                    return False
                return len(heard) > 2

            await eventually(listen)
            assert set(heard) == {b"WATCHDOG=1"}
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(scenario())


def test_nobody_who_listens_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A socket that is gone and a directory that cannot be written cost a line in the log."""
    presence = Presence(tmp_path / "missing", "1.2.0", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    presence(True)
    presence(False)
    assert "systemd cannot be told" in caplog.text
    assert "cannot be written" in caplog.text
