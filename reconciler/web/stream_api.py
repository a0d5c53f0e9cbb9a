"""``GET /api/v1/stream``: the feed as server-sent events (HTML, 9.2), for browsers and programs.

``event:`` is a topic of the feed, with JSON in ``data:``, or one of

``missed``   changes of the ``topics`` named in it are gone: look at everything of these again
``ping``     nothing happened for a while, and the control plane is still there
``expired``  the caller's credentials are good no more; the stream ends

``id:`` is the place to go on from: browsers send it as ``Last-Event-ID`` when they come back.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Final, cast

import anyio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from reconciler.errors import Refused
from reconciler.pki.authenticator import Authenticator, Identity
from reconciler.status import Tracker
from reconciler.web.endpoint import Endpoint
from reconciler.web.feed import LONGEST_PLACE, TOPICS, Feed, Listener, Taken, Topic

STREAM_PATH: Final = "/api/v1/stream"
STREAM_MEDIA: Final = "text/event-stream"
KEEP_ALIVE_SECONDS: Final = 15.0
PACE_SECONDS: Final = 0.2
"""Between two parts of a stream: what changes faster is told once."""
RETRY_MILLISECONDS: Final = 2000
"""After which a browser comes back."""
_EXPIRED: Final = 'event: expired\ndata: {"hint": "Come again with new credentials."}\n\n'
_PING: Final = "event: ping\ndata: {}\n\n"


class StreamApi:
    """``endpoints()`` is the table. ``pace``: seconds between two parts of a stream."""

    def __init__(
        self,
        *,
        feed: Feed,
        tracker: Tracker,
        authenticator: Authenticator,
        clock: Callable[[], float],
        pace: float = PACE_SECONDS,
    ) -> None:
        self._feed = feed
        self._tracker = tracker
        self._authenticator = authenticator
        self._clock = clock
        self._pace = pace

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        query = {"topics": f"some of {', '.join(TOPICS)}, with commas between; without it all"}
        return (
            Endpoint("GET", STREAM_PATH, "What changes, as server-sent events", self.stream, "read", query=query,
                     media=STREAM_MEDIA, problems={429: "The caller listens too often already."}),
        )  # fmt: skip

    async def stream(self, request: Request) -> Response:
        """Where the newest revision stands, then every change, until the caller's credentials are good no more."""
        caller = self._authenticator.authenticate(request.method, str(request.url), request.headers, self._clock())
        caller.require("read")
        topics = _topics_of(request.query_params.get("topics"))
        place = request.headers.get("last-event-id", "")[:LONGEST_PLACE]
        listening = ExitStack()
        listener = listening.enter_context(self._feed.listen(topics, place, str(caller)))
        return _Stream(self._parts(listener, caller, is_new=not place), listening)

    async def _parts(self, listener: Listener, caller: Identity, *, is_new: bool) -> AsyncIterator[str]:
        yield f": connected\nretry: {RETRY_MILLISECONDS}\n\n"
        if is_new and "revision" in listener.topics and (newest := await self._tracker.newest_status()) is not None:
            yield _written("revision", newest.model_dump_json(by_alias=True))
        while (left := caller.accepted_until - self._clock()) > 0:
            taken = await listener.take(min(left, KEEP_ALIVE_SECONDS))
            if taken is None:
                return
            if not self._authenticator.is_still_good(caller, self._clock()):
                break
            yield _part_of(taken) or _PING
            await anyio.sleep(self._pace)
        yield _EXPIRED


class _Stream(StreamingResponse):
    """Stops listening when it ends, however it does: a generator that was never begun has no end of its own."""

    def __init__(self, parts: AsyncIterator[str], listening: ExitStack) -> None:
        super().__init__(parts, media_type=STREAM_MEDIA, headers={"Cache-Control": "no-store"})
        self._listening = listening

    async def __call__(self, *arguments: object) -> None:
        with self._listening:
            await super().__call__(*arguments)  # type: ignore[arg-type]


def _topics_of(text: str | None) -> tuple[Topic, ...]:
    if text is None:
        return TOPICS
    named = frozenset(text.split(","))
    if not named <= frozenset(TOPICS):
        raise Refused(f"topics are some of {', '.join(TOPICS)}.", status=400, code="bad-query")
    return cast("tuple[Topic, ...]", tuple(topic for topic in TOPICS if topic in named))


def _part_of(taken: Taken) -> str:
    """Write what was taken as one part; its last event has the place to go on from."""
    events = [(change.topic, change.text) for change in taken.changes]
    if taken.missed:
        events.insert(0, ("missed", json.dumps({"topics": taken.missed})))  # type: ignore[arg-type]
    place = f"id: {taken.place}\n"
    return "".join(
        _written(name, text, place if at == len(events) else "") for at, (name, text) in enumerate(events, 1)
    )


def _written(name: str, data: str, place: str = "") -> str:
    """``data`` is JSON in one line."""
    return f"{place}event: {name}\ndata: {data}\n\n"
