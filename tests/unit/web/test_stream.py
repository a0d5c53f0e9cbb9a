"""The stream of changes: what it begins with, what it tells, where it goes on, and when it ends."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from reconciler.web.feed import MAX_LISTENERS
from schemas.status import RevisionStatus
from tests.support.waiting import eventually
from tests.unit.web.asking import API, Asked, code, run

ONE, TWO = "1" * 40, "2" * 40


class Listener:
    """Reads ``/api/v1/stream`` as the server would send it, part by part."""

    def __init__(self, one: Asked, headers: dict[str, str], query: str = "") -> None:
        self.status = 0
        self.parts: list[str] = []
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "GET", "path": f"{API}/stream", "query_string": query.encode(),
                 "headers": raw}  # fmt: skip
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
    def events(self) -> list[tuple[str, Any]]:
        """What came, as a browser hears it: name and JSON."""
        found = []
        for block in "".join(self.parts).split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.splitlines())
            if "event" in lines:
                found.append((lines["event"], json.loads(lines["data"])))
        return found

    @property
    def place(self) -> str:
        """What a browser sends as Last-Event-ID when it comes back."""
        ids = [line.removeprefix("id: ") for line in "".join(self.parts).splitlines() if line.startswith("id: ")]
        return ids[-1]

    @property
    def revisions(self) -> list[tuple[str, str]]:
        records = [RevisionStatus.model_validate(data) for name, data in self.events if name == "revision"]
        return [(record.revision, record.state) for record in records]


def test_the_stream_begins_with_what_is_and_goes_on_with_what_changes(tmp_path: Path) -> None:
    """Who comes back has missed nothing of the newest revision; when the control plane ends, so does the stream."""

    async def scenario(one: Asked) -> None:
        one.tracker.begin(ONE)
        listener = Listener(one, one.bearer("read"))
        await eventually(lambda: len(listener.revisions) == 1)
        one.tracker.stop(ONE, "Held", "DeletionGuard", "too much", approve="sha256:1")
        one.feed.tell("agent", "vps-1")
        await eventually(lambda: len(listener.events) == 3)
        assert listener.revisions == [(ONE, "Progressing"), (ONE, "Held")]
        assert listener.events[-1] == ("agent", {"name": "vps-1"})
        one.feed.close()
        await asyncio.wait_for(listener.task, 30)
        assert "expired" not in listener.parts[-1]

    run(tmp_path, scenario)


def test_a_listener_hears_what_it_asked_for(tmp_path: Path) -> None:
    """Topics are named in the query; one that there is not is refused."""

    async def scenario(one: Asked) -> None:
        one.tracker.begin(ONE)
        listener = Listener(one, one.bearer("read"), "topics=agent,front")
        await eventually(lambda: bool(listener.parts))
        one.feed.tell("object", "routes/shop/web.yaml")
        one.feed.tell("agent", "vps-1")
        await eventually(lambda: bool(listener.events))
        assert listener.events == [("agent", {"name": "vps-1"})]
        listener.task.cancel()
        answer = await one.get("/stream", topics="agent,nothing")
        assert (answer.status_code, code(answer)) == (400, "bad-query")

    run(tmp_path, scenario)


def test_who_comes_back_goes_on_where_it_was(tmp_path: Path) -> None:
    """It gets what changed meanwhile, each thing once; not where it was is for a place that nobody knows any more."""

    async def scenario(one: Asked) -> None:
        first = Listener(one, one.bearer("read"))
        await eventually(lambda: bool(first.parts))
        one.feed.tell("agent", "vps-1")
        await eventually(lambda: bool(first.events))
        first.task.cancel()
        for name in ("vps-2", "vps-3", "vps-2"):
            one.feed.tell("agent", name)
        second = Listener(one, {**one.bearer("read"), "Last-Event-ID": first.place})
        await eventually(lambda: len(second.events) == 2)
        assert second.events == [("agent", {"name": "vps-3"}), ("agent", {"name": "vps-2"})]
        third = Listener(one, {**one.bearer("read"), "Last-Event-ID": "0badcafe-7"}, "topics=agent,front")
        await eventually(lambda: bool(third.events))
        assert third.events[0] == ("missed", {"topics": ["agent", "front"]})
        for listener in (second, third):
            listener.task.cancel()

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
        await asyncio.wait_for(listener.task, 30)
        assert (listener.status, listener.parts[0]) == (200, ": connected\nretry: 2000\n\n")
        assert listener.events[-1][0] == "expired"
        assert not one.feed.is_heard("revision")

    run(tmp_path, scenario)


def test_the_stream_ends_when_its_credentials_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that was ended hears nothing of what came after."""

    async def scenario(one: Asked) -> None:
        listener = Listener(one, one.bearer("read"))
        await eventually(lambda: bool(listener.parts))
        monkeypatch.setattr(one.authenticator, "is_still_good", lambda *_: False)
        one.tracker.begin(ONE)
        await asyncio.wait_for(listener.task, 30)
        assert [name for name, _ in listener.events] == ["expired"]

    run(tmp_path, scenario)


def test_the_stream_is_silent_until_its_token_ends(tmp_path: Path) -> None:
    """Also where nothing changes, nobody listens longer than the token is good."""

    async def scenario(one: Asked) -> None:
        made = int(time.time()) - 118
        one.stream._clock = time.time
        listener = Listener(one, one.bearer("read", made=made))  # good for another second or two
        await asyncio.wait_for(listener.task, 30)
        assert time.time() >= made + 120
        assert listener.events[-1][0] == "expired"

    run(tmp_path, scenario)


def test_a_full_stream_sends_away(tmp_path: Path) -> None:
    """503 with a time to come back when too many listen."""

    async def scenario(one: Asked) -> None:
        with ExitStack() as listening:
            for _ in range(MAX_LISTENERS):
                listening.enter_context(one.feed.listen())
            answer = await one.get("/stream")
        assert (answer.status_code, code(answer), answer.headers["retry-after"]) == (503, "busy", "10")

    run(tmp_path, scenario)
