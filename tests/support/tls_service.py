"""A service that speaks TLS with the files of an agent and reads them again on SIGHUP, as nginx and others do."""

from __future__ import annotations

import hashlib
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.ports import free_port
from tests.support.waiting import wait_for

PROGRAM = """
import os, signal, socket, ssl, sys, threading
whole, pid_file, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
load = lambda *_: context.load_cert_chain(whole)
load()
signal.signal(signal.SIGHUP, load)
listener = socket.create_server(("127.0.0.1", port))
with open(pid_file, "w") as file:
    file.write(str(os.getpid()))
def answer(raw):
    try:
        with context.wrap_socket(raw, server_side=True) as tls:
            tls.sendall(b"hello")
            tls.unwrap()
    except OSError:
        pass
while True:
    raw, _ = listener.accept()
    threading.Thread(target=answer, args=(raw,), daemon=True).start()
"""


class TlsService:
    """``folder`` is the link to the service's files; the pid file is ``pid_file``."""

    def __init__(self, folder: Path, pid_file: Path) -> None:
        self.folder = folder
        self.port = free_port()
        arguments = [str(folder / "tls.pem"), str(pid_file), str(self.port)]
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments])
        wait_for(pid_file.exists, 20, what="the service listens")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def leaf(self, host: str, roots: str) -> str:
        """Connect as somebody who trusts ``roots`` (PEM) and wants ``host``; return the SHA-256 of what is served.

        Raises:
            OSError: when anything is wrong with it.
        """
        context = ssl.create_default_context(cadata=roots)
        with (
            socket.create_connection(("127.0.0.1", self.port), 10) as raw,
            context.wrap_socket(raw, server_hostname=host) as tls,
        ):
            shown = tls.getpeercert(binary_form=True)
            if tls.recv(16) != b"hello":
                raise ConnectionError("the service said nothing")
        assert shown is not None
        return hashlib.sha256(shown).hexdigest()


class Watcher:
    """Does something again and again in a thread of its own, and keeps what went wrong."""

    def __init__(self, look: Callable[[], object]) -> None:
        self.failures: list[str] = []
        self.looks = 0
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(20)

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            try:
                self._look()
                self.looks += 1
            except Exception as error:  # noqa: BLE001  a test tells of all
                self.failures.append(repr(error))
