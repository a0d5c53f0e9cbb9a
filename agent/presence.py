"""Lets this machine know that the agent is connected: ``<data>/connected`` while it is, and a word to systemd.

``agent install`` and ``agent upgrade`` wait for it. The notification follows sd_notify(3): one datagram to the socket
that ``NOTIFY_SOCKET`` names; without that variable nobody is told.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

FILE_NAME: Final = "connected"
_SELDOM: Final = 3600.0


class Presence:
    """Call it with True when a connection stands, and with False at the start and when one ends.

    A disk that takes nothing stops nobody.
    """

    def __init__(self, data: Path, version: str, environment: Mapping[str, str] = os.environ) -> None:
        self._path = data / FILE_NAME
        self._text = f"{version}\n"
        self._socket = environment.get("NOTIFY_SOCKET", "")
        watchdog = environment.get("WATCHDOG_USEC", "")
        self._pause = int(watchdog) / 3e6 if watchdog.isdigit() and int(watchdog) else _SELDOM

    def __call__(self, connected: bool) -> None:
        if connected:
            try:
                self._path.write_text(f"{time.time():.3f} {os.getpid()} {self._text}", encoding="utf-8")
            except OSError as error:
                log.warning("%s cannot be written: %s", self._path, error.strerror)
        else:
            self._forget()
        self._notify(f"READY=1\nSTATUS={'Connected.' if connected else 'Not connected; what runs goes on running.'}")

    async def run(self) -> None:
        """Tell systemd again and again that the loop goes on, where it wants to know; for ever."""
        while True:
            await asyncio.sleep(self._pause)
            self._notify("WATCHDOG=1")

    def _forget(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed: %s", self._path, error.strerror)

    def _notify(self, text: str) -> None:
        if not self._socket.startswith(("/", "@")):
            return
        address = f"\0{self._socket[1:]}" if self._socket[0] == "@" else self._socket
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.sendto(text.encode(), address)
        except OSError as error:
            log.warning("systemd cannot be told: %s", error)


def connected_since(data: Path) -> tuple[float, str] | None:
    """Return since when the agent of this directory is connected, POSIX seconds, and its version; None: it is not."""
    try:
        text = (data / FILE_NAME).read_text(encoding="utf-8")[:256]
        when, pid, version = text.split()
        if not Path(f"/proc/{int(pid)}").exists():
            return None
        return float(when), version
    except (OSError, ValueError):
        return None
