"""``cloudlunacy token`` as it speaks to a control plane."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from reconciler import cli

ID = "0123456789abcdef0123"
SECRET = "canary-" * 6 + "x"


class Recording(BaseHTTPRequestHandler):
    """Refuses everything, and remembers what it was asked for."""

    paths: list[str]

    def do_POST(self) -> None:
        self.paths.append(self.path)
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An address, and the paths that were asked for there."""
    paths: list[str] = []
    with HTTPServer(("127.0.0.1", 0), type("One", (Recording,), {"paths": paths})) as one:
        thread = threading.Thread(target=one.serve_forever, name="recording")
        thread.start()
        yield f"http://127.0.0.1:{one.server_port}", paths
        one.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("given", "asked"),
    [(f"clt_{ID}.{SECRET}", ID), (f" {ID}.{SECRET}\n", ID), (ID, ID), ("deploy", "deploy"), ("a/b", "a%2Fb")],
)
def test_the_secret_of_a_token_goes_into_no_address(
    server: tuple[str, list[str]], capsys: pytest.CaptureFixture[str], given: str, asked: str
) -> None:
    """Addresses stand in logs; whoever gives the token in place of its name means its id."""
    address, paths = server
    assert cli.run(cli.COMMANDS, ["token", "revoke", given, "--server", address]) == 1
    assert paths == [f"/api/v1/tokens/{asked}/revocation"]
    assert "canary" not in "".join(capsys.readouterr())
