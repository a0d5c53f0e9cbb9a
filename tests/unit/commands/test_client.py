"""What commands say when the control plane refuses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from reconciler.commands.client import Client, Target
from reconciler.errors import Refused

PROBLEM = b"""{"type": "urn:cloudlunacy:problem:invalid-request", "title": "Invalid request", "status": 422,
 "detail": "The request is not valid: 2 problem(s).", "hint": "Mend it.",
 "errors": [{"field": "agent", "message": "is no name"}, {"field": "", "message": "Invalid JSON"}]}"""


class Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(422)
        self.send_header("Content-Length", str(len(PROBLEM)))
        self.end_headers()
        self.wfile.write(PROBLEM)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Refusing) as one:
        thread = threading.Thread(target=one.serve_forever, name="refusing")
        thread.start()
        yield f"http://127.0.0.1:{one.server_port}"
        one.shutdown()
        thread.join()


def test_every_reason_reaches_the_person(server: str) -> None:
    """The fields that are wrong come with the sentence, and the code is the last part of the problem's URN."""
    with Client(Target(server, None, None)) as client, pytest.raises(Refused) as refused:
        client.get("/status")
    said = "The request is not valid: 2 problem(s).\n  agent: is no name\n  the body: Invalid JSON"
    assert (refused.value.message, refused.value.code, refused.value.hint) == (said, "invalid-request", "Mend it.")
