"""An app of the demo: an HTTP server that says what reached it, or a TCP echo.

The demo copies this file into its folder, and agents run it as a deployment of type process, confined where they can:
``python app.py vps-1:8081 [--tcp]``. Standard library only, any Python from 3.9 on. It listens at the port that the
agent gave it (``PORT``). ``/health`` and ``/healthz`` answer ``ok``; ``/auth`` lets everybody in as ``demo``, for the
route that asks it. What ``GREETING`` says is part of each answer.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

HOST: Final = "127.0.0.1"
HEALTH: Final = ("/health", "/healthz")
MOST_BODY: Final = 1024 * 1024


class HttpApp(BaseHTTPRequestHandler):
    """Answers every request with what it looks like from here."""

    protocol_version = "HTTP/1.1"
    server: Named

    def _answer(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > MOST_BODY:
            self.send_error(413)
            return
        self.rfile.read(int(length))
        path = self.path.partition("?")[0]
        if path in HEALTH:
            self._send(b"ok\n", "text/plain")
            return
        said = {
            "app": self.server.name,
            "greeting": os.environ.get("GREETING", ""),
            "port": self.server.server_port,
            "host": self.headers.get("Host", ""),
            "method": self.command,
            "path": self.path,
            "headers": dict(self.headers.items()),
        }
        self._send(
            f"{json.dumps(said, indent=2)}\n".encode(), "application/json", user="demo" if path == "/auth" else ""
        )

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer  # noqa: N815 - http.server's names

    def _send(self, body: bytes, kind: str, *, user: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-App", self.server.name)
        if user:
            self.send_header("X-User", user)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Health checks come every few seconds and would hide everything else."""
        if self.path.partition("?")[0] not in HEALTH:
            super().log_request(code, size)


class Named(ThreadingHTTPServer):
    """A server that knows what it is called."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        super().__init__((HOST, port), HttpApp)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a front that closed a connection it had no more use for; that is no fault of an app."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Echo(socketserver.StreamRequestHandler):
    """Greets, then sends back each line."""

    server: NamedTcp

    def handle(self) -> None:
        self.wfile.write(f"this is {self.server.name}\n".encode())
        for line in self.rfile:
            self.wfile.write(line)


class NamedTcp(socketserver.ThreadingTCPServer):
    """A TCP server that knows what it is called."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        super().__init__((HOST, port), Echo)


def main() -> int:
    """Serve until SIGTERM comes; requests under way are answered."""
    parser = argparse.ArgumentParser(description="An app of the demo.")
    parser.add_argument("name")
    parser.add_argument("--tcp", action="store_true", help="echo lines instead of answering HTTP")
    options = parser.parse_args()
    port = int(os.environ["PORT"])
    server: Named | NamedTcp = NamedTcp(options.name, port) if options.tcp else Named(options.name, port)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown, name="end").start())
    sys.stdout.write(f"{options.name} listens at {HOST}:{port}\n")
    sys.stdout.flush()
    server.serve_forever(poll_interval=0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
