"""The stream of records: what it begins with, what it tells, and when it ends."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from reconciler.status import MAX_LISTENERS
from schemas.status import RevisionStatus
from tests.support.waiting import eventually
from tests.unit.web.asking import API, Asked, code, run

ONE, TWO = "1" * 40, "2" * 40


class Listener:
    """Reads ``/api/v1/stream`` as the server would send it, part by part."""

    def __init__(self, one: Asked, headers: dict[str, str]) -> None:
        self.status = 0
        self.parts: list[str] = []
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "GET", "path": f"{API}/stream", "query_string": b"", "headers": raw}
        self.task = asyncio.ensure_future(one.app(scope, self._receive, self._send))
        self._asked = False

    async def _receive(self) -> dict[str, Any]:
        if self._asked:
            await asyncio.Event().wait()  # stays connected
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        if text := message.get("body", b"").decode():
            self.parts.append(text)

    @property
    def revisions(self) -> list[tuple[str, str]]:
        told = [part.removeprefix("event: revision\ndata: ") for part in self.parts if "event: revision" in part]
        records = [RevisionStatus.model_validate_json(each) for each in told]
        return [(record.revision, record.state) for record in records]


def test_the_stream_begins_with_what_is_and_goes_on_with_what_changes(tmp_path: Path) -> None:
    """Who comes back has missed nothing of the newest revision; when the control plane ends, so does the stream."""

    async def scenario(one: Asked) -> None:
        one.tracker.begin(ONE)
        listener = Listener(one, one.bearer("read"))
        await eventually(lambda: len(listener.revisions) == 1)
        one.tracker.stop(ONE, "Held", "DeletionGuard", "too much", approve="sha256:1")
        await eventually(lambda: len(listener.revisions) == 2)
        assert listener.revisions == [(ONE, "Progressing"), (ONE, "Held")]
        one.tracker.close()
        await asyncio.wait_for(listener.task, 5)
        assert "expired" not in listener.parts[-1]

    run(tmp_path, scenario)


def test_the_stream_ends_with_its_token(tmp_path: Path) -> None:
    """When the token is good no more the listener is told to come again, and its place is free."""

    async def scenario(one: Asked) -> None:
        listener = Listener(one, one.bearer("read"))
        await eventually(lambda: bool(listener.parts))
        one.now += 119  # of a minute, and one of leeway
        one.tracker.begin(ONE)
        await eventually(lambda: len(listener.revisions) == 1)
        one.now += 1
        one.tracker.begin(TWO)
        await asyncio.wait_for(listener.task, 5)
        assert (listener.status, listener.parts[0]) == (200, ": connected\n\n")
        assert listener.parts[-1] == 'event: expired\ndata: {"hint": "Come again with a new token."}\n\n'
        for _ in range(MAX_LISTENERS):
            assert one.tracker.listen() is not None

    run(tmp_path, scenario)


def test_the_stream_is_silent_until_its_token_ends(tmp_path: Path) -> None:
    """Also where nothing changes, nobody listens longer than the token is good."""

    async def scenario(one: Asked) -> None:
        made = int(time.time()) - 118
        one.api._clock = time.time
        listener = Listener(one, one.bearer("read", made=made))  # good for another second or two
        await asyncio.wait_for(listener.task, 10)
        assert time.time() >= made + 120
        assert listener.parts[-1].startswith("event: expired\n")

    run(tmp_path, scenario)


def test_a_full_stream_sends_away(tmp_path: Path) -> None:
    """503 with a time to come back when too many listen."""

    async def scenario(one: Asked) -> None:
        for _ in range(MAX_LISTENERS):
            one.tracker.listen()
        answer = await one.get("/stream")
        assert (answer.status_code, code(answer), answer.headers["retry-after"]) == (503, "busy", "10")

    run(tmp_path, scenario)
