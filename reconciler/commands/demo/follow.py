"""Follows the control plane: the stream of records, and the timeline for everything else."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, Self

import httpx
from pydantic import ValidationError

from reconciler.commands.client import Client, Target
from reconciler.commands.demo.narrator import Narrator, event_line
from reconciler.errors import Broken, Refused, Transient
from schemas.api import EventList, EventView
from schemas.status import RevisionStatus

PAUSE: Final = 0.1
RECONNECT_SECONDS: Final = 1.0
EVENTS_SECONDS: Final = 1.0
PAGE: Final = 1000
_DATA: Final = "data: "
_EVENT: Final = "event: "


class Stream:
    """Reads ``/api/v1/stream`` in a thread, and again when it breaks. Use as a context manager."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._found: queue.Queue[RevisionStatus] = queue.Queue()
        self._ended = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="demo-stream", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up, so that the control plane need not wait for us when it ends."""
        self._ended.set()
        with suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(RECONNECT_SECONDS)

    def next(self, seconds: float) -> RevisionStatus | None:
        """Return the next change of a record, None when there is none in that time."""
        with suppress(queue.Empty):
            return self._found.get(timeout=seconds)
        return None

    def _run(self) -> None:
        while not self._ended.is_set():
            expired = False
            with suppress(httpx.HTTPError, Broken, Transient, ValidationError):
                expired = self._read()
            if not expired:
                self._ended.wait(RECONNECT_SECONDS)

    def _read(self) -> bool:
        """Read until the stream ends; True where it ended because the token has."""
        url = f"{self._target.server}/api/v1/stream?topics=revision"
        timeout = httpx.Timeout(10.0, read=60.0)  # the control plane says every 15 s that it is still there
        with (
            httpx.Client(verify=self._target.tls(), timeout=timeout, trust_env=False) as client,
            client.stream("GET", url, headers=self._target.headers()) as answer,
        ):
            answer.raise_for_status()
            self._socket = answer.extensions["network_stream"].get_extra_info("socket")
            event = ""
            for line in answer.iter_lines():
                event = line.removeprefix(_EVENT) if line.startswith(_EVENT) else event
                if event == "expired":
                    return True
                if event == "revision" and line.startswith(_DATA):
                    self._found.put(RevisionStatus.model_validate_json(line.removeprefix(_DATA)))
                if self._ended.is_set():
                    break
        return False


class Timeline:
    """Reads ``/api/v1/events`` from now on."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._since = datetime.now(UTC)  # some events are written down a while after they happened
        self._last = 0
        self._next = 0.0
        self._read()

    def news(self) -> tuple[EventView, ...]:
        """Return what happened since the last call; asks once a second, and a server that is away has no news."""
        if time.monotonic() < self._next:
            return ()
        self._next = time.monotonic() + EVENTS_SECONDS
        with suppress(Transient, Refused):
            return self._read()
        return ()

    def _read(self) -> tuple[EventView, ...]:
        events = EventList.model_validate(self._client.get("/events", after=self._last, limit=PAGE)).events
        self._last = max((event.id for event in events), default=self._last)
        return tuple(event for event in events if event.time >= self._since)


def follow(target: Target, narrator: Narrator, say: Callable[[str], None], check: Callable[[], None]) -> None:
    """Tell what comes until ``check`` raises."""
    with Stream(target) as stream, Client(target) as client:
        timeline = Timeline(client)
        while True:
            check()
            status = stream.next(PAUSE)
            if status is not None:
                for line in narrator.lines(status):
                    say(line)
            for event in timeline.news():
                if text := event_line(event):
                    say(text)
