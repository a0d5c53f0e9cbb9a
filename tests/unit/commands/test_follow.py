"""How the demo listens to the stream of records."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from reconciler.commands.client import Target
from reconciler.commands.demo import follow
from reconciler.commands.demo.follow import Stream
from schemas.status import STAGES, RevisionStatus

RECORD = RevisionStatus(revision="1" * 40, state="Held", stages=dict.fromkeys(STAGES))
ANSWERS = {
    "expired": 'event: expired\ndata: {"hint": "Come again with a new token."}\n\n',
    "broken": "event: revision\ndata: {\n\n",
    "record": f"event: revision\ndata: {RECORD.model_dump_json(by_alias=True)}\n\n",
}


class _Script(BaseHTTPRequestHandler):
    """Answers each request with the next word of the server's script, and hangs up."""

    def do_GET(self) -> None:
        words: list[str] = self.server.script  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f": connected\n\n{ANSWERS[words.pop(0) if words else 'record']}".encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Script) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(("first", "pause"), [("expired", 3600.0), ("broken", 0.01)])
def test_a_stream_that_ends_is_listened_to_again(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, first: str, pause: float
) -> None:
    """At once where the token was used up, so that nothing is told late; after a pause where something is wrong."""
    monkeypatch.setattr(follow, "RECONNECT_SECONDS", pause)
    server.script = [first, first]  # type: ignore[attr-defined]
    with Stream(Target(f"http://127.0.0.1:{server.server_port}", None, None)) as stream:
        assert stream.next(10) == RECORD
