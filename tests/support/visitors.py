"""People in front of a browser: a running demo, and windows in which somebody is logged in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from playwright.sync_api import Browser

from reconciler.commands.client import Client, local_target
from reconciler.errors import Refused
from tests.support.browser import DESK, Window, window
from tests.support.demo import RunningDemo
from tests.support.waiting import wait_for

EVERYTHING: Final = ("read", "plan", "approve", "enrol", "operate", "write", "exec")


class Site:
    """The dashboard of a running demo."""

    def __init__(self, demo: RunningDemo, browser: Browser) -> None:
        self.demo = demo
        self.browser = browser
        self.target = local_target(demo.data)
        self.origin = self.target.server
        self._tokens: dict[tuple[str, ...], dict[str, Any]] = {}

    def ask(self, path: str, **query: Any) -> dict[str, Any]:
        """GET below /api/v1 as the operator of the machine."""
        with Client(self.target) as client:
            found: dict[str, Any] = client.get(path, **query)
            return found

    def settled(self, revision: str, *states: str) -> None:
        """Wait until a revision is in one of the states; the loop may not have come to it yet."""

        def reached() -> bool:
            try:
                return self.ask(f"/revisions/{revision}")["state"] in states
            except Refused as refused:
                if refused.status != 404:
                    raise
                return False

        wait_for(reached, 90, what=f"{states} of {revision}")

    @contextmanager
    def visit(self, *scopes: str, width: int = DESK, **options: Any) -> Iterator[Window]:
        """Open a window of somebody who may do what the scopes say; everything without them."""
        wanted = scopes or EVERYTHING
        if wanted not in self._tokens:
            with Client(self.target) as client:
                body = {"kind": "person", "scopes": list(wanted)}
                self._tokens[wanted] = client.post("/tokens", body)
        headers = {"Authorization": f"Bearer {self._tokens[wanted]['token']}"}
        with window(self.browser, self.origin, width=width, extra_http_headers=headers, **options) as one:
            yield one

    @contextmanager
    def member(self, role: str | None = None, *teams: str, width: int = DESK, **options: Any) -> Iterator[Window]:
        """Open a window in which somebody has logged in by a link, with a session as browsers have it."""
        with self.stranger(width, **options) as one:
            self.let_in(one, role, *teams)
            yield one

    def let_in(self, one: Window, role: str | None = None, *teams: str) -> None:
        """Log somebody in by a link."""
        with Client(self.target) as client:
            link = client.post("/login-links", {"name": "ann", "role": role, "teams": list(teams)})
        key = str(link["url"]).partition("?")[2]
        one.open(f"/login/link?{key}")
        one.submit("Log in")

    def log_out(self, *scopes: str) -> None:
        """Let no window go on that was opened with the scopes."""
        token = self._tokens.pop(scopes)
        with Client(self.target) as client:
            client.post(f"/tokens/{token['id']}/revocation", {})

    @contextmanager
    def stranger(self, width: int = DESK, **options: Any) -> Iterator[Window]:
        """Open a window of somebody who is not logged in."""
        with window(self.browser, self.origin, width=width, **options) as one:
            yield one
