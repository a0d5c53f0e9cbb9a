"""A registry of one image over plain HTTP on loopback, which asks for a password; of its protocol what a pull needs."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"


class Registry(ThreadingHTTPServer):
    """``name``: of the image, registry included. ``pulls``: how often its manifest was asked for by who may."""

    daemon_threads = True

    def __init__(self, layer: Path, username: str, password: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name = f"127.0.0.1:{self.server_address[1]}/private/web:1"
        self.pulls = 0
        self.expected = f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"
        self.blobs: dict[str, tuple[str, bytes]] = {}
        content = layer.read_bytes()
        root = {"type": "layers", "diff_ids": [_digest(content)]}
        config = {"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"]}, "rootfs": root}
        parts = [self._keep(_CONFIG, json.dumps(config).encode()), self._keep(_LAYER, content)]
        manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": parts[0], "layers": [parts[1]]}
        self.manifest = json.dumps(manifest).encode()
        self._keep(_MANIFEST, self.manifest)

    def _keep(self, kind: str, content: bytes) -> dict[str, str | int]:
        self.blobs[_digest(content)] = (kind, content)
        return {"mediaType": kind, "size": len(content), "digest": _digest(content)}


class _Handler(BaseHTTPRequestHandler):
    server: Registry
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        registry = self.server
        if self.headers.get("Authorization") != registry.expected:
            self._say(401, "application/json", b"{}", authenticate=True)
            return
        last = self.path.rpartition("/")[2]
        if "/manifests/" in self.path and not last.startswith("sha256:"):
            registry.pulls += self.command == "GET" or self.command == "HEAD"
            self._say(200, _MANIFEST, registry.manifest)
        elif self.path == "/v2/":
            self._say(200, "application/json", b"{}")
        else:
            kind, content = registry.blobs.get(last, ("", b""))
            self._say(200 if kind else 404, kind or "text/plain", content)

    do_GET = do_HEAD = _answer  # noqa: N815  http.server's names

    def _say(self, status: int, kind: str, content: bytes, *, authenticate: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Docker-Content-Digest", _digest(content))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if authenticate:
            self.send_header("WWW-Authenticate", 'Basic realm="tests"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextmanager
def registry(layer: Path, username: str, password: str) -> Iterator[Registry]:
    """Serve an image of one layer, a tar archive; in the namespace of the thread that asks."""
    found = Registry(layer, username, password)
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        found.shutdown()
        found.server_close()
        thread.join()
