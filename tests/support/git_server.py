"""A git server over HTTP: ``git http-backend`` behind a small CGI server on loopback, and its evil twins.

``server.behaviour`` may be changed at any time; ``server.requests`` counts what came.
"""

from __future__ import annotations

import base64
import os
import random
import subprocess
import threading
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from tests.support.parts import require

Behaviour = Literal["serve", "error", "garbage", "redirect", "stall", "slow-pack", "endless-pack", "cut-push-answer"]
PKT_BYTES = 60_000


@dataclass
class GitServer:
    """What the tests see. ``root`` holds the bare repositories."""

    root: Path
    backend: Path
    username: str = ""
    password: str = ""
    behaviour: Behaviour = "serve"
    redirect_to: str = ""
    url: str = ""
    requests: list[str] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def url_of(self, repository: Path) -> str:
        return f"{self.url}/{repository.relative_to(self.root)}"

    def allows(self, authorization: str | None) -> bool:
        if not self.password:
            return True
        expected = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        return authorization == f"Basic {expected}"


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    git: GitServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that hang up are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self._body())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, body: bytes) -> None:
        git = self.server.git
        git.requests.append(f"{self.command} {self.path}")
        is_fetch = b"command=fetch" in body
        if not git.allows(self.headers.get("Authorization")):
            self._send(401, b"who are you?", {"WWW-Authenticate": 'Basic realm="git"'})
        elif git.behaviour == "error":
            self._send(500, b"\x1b[31mbroken\x1b[0m")
        elif git.behaviour == "garbage":
            self._send(200, b"<html>\x1b]0;title\x07 welcome to the captive portal", {"Content-Type": "text/html"})
        elif git.behaviour == "redirect":
            self._send(302, b"", {"Location": git.redirect_to + self.path})
        elif git.behaviour == "stall":
            git.closing.wait()
        elif git.behaviour in ("slow-pack", "endless-pack") and is_fetch:
            self._stream(_dribble(git.closing) if git.behaviour == "slow-pack" else _endless_pack())
        elif git.behaviour == "cut-push-answer" and self.path.endswith("/git-receive-pack") and body:
            self._cgi(body)
            self.close_connection = True
        else:
            status, headers, content = self._cgi(body)
            self._send(status, content, headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, pieces: Iterator[bytes]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-git-upload-pack-result")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(b"000dpackfile\n")
        for piece in pieces:
            self.wfile.write(b"%04x\x01" % (len(piece) + 5) + piece)
            if self.server.git.closing.is_set():
                return

    def _cgi(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Run http-backend as RFC 3875 says."""
        git, parts = self.server.git, urlsplit(self.path)
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(git.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.receivepack",
            "GIT_CONFIG_VALUE_0": "true",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_USER": git.username,
            "REMOTE_ADDR": "127.0.0.1",
        }
        answer = subprocess.run([git.backend], input=body, capture_output=True, env=environment, check=False).stdout
        head, _, content = answer.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n") if ": " in line)
        status = int(headers.pop("Status", "200").split(" ")[0])
        return status, headers, content


def _dribble(closing: threading.Event) -> Iterator[bytes]:
    """Begin a well-formed pack and go on with a byte at a time."""
    content = random.Random(1).randbytes(PKT_BYTES)
    yield b"PACK\0\0\0\2\0\0\0\1" + _object_header(len(content))
    for byte in zlib.compress(content, 0):
        if closing.wait(0.05):
            return
        yield bytes([byte])


def _endless_pack() -> Iterator[bytes]:
    """Send well-formed blobs that do not compress, of sixteen million that the header promises."""
    yield b"PACK\0\0\0\2\1\0\0\0"
    noise = random.Random(1)
    while True:
        content = noise.randbytes(PKT_BYTES - 100)
        yield _object_header(len(content)) + zlib.compress(content, 0)


def _object_header(size: int) -> bytes:
    """Write type blob and size as gitformat-pack(5) says."""
    header = bytearray([(3 << 4) | (size & 15)])
    size >>= 4
    while size:
        header[-1] |= 0x80
        header.append(size & 0x7F)
        size >>= 7
    return bytes(header)


@contextmanager
def git_server(root: Path, *, username: str = "", password: str = "") -> Generator[GitServer]:
    """Serve the bare repositories under ``root`` until the block ends; basic auth when a password is given."""
    git = GitServer(root, require("git-http-backend"), username, password)
    listener = _Listener(("127.0.0.1", 0), _Handler)
    listener.git = git
    git.url = f"http://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, name="git-server")
    thread.start()
    try:
        yield git
    finally:
        git.closing.set()
        listener.shutdown()
        thread.join()
        listener.server_close()
