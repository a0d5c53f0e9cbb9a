"""The timeline: searched, and read in both directions."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from reconciler.errors import Refused
from reconciler.store.protocols import EventFilter, EventStore
from reconciler.web.bodies import whole_answer
from reconciler.web.callers import Callers
from reconciler.web.endpoint import Endpoint
from reconciler.web.event_views import event_view
from reconciler.web.parameters import LARGEST_PAGE, TIME, number, one_of, text
from reconciler.web.queries import limit_of, moment_of, number_of
from schemas.api import EventList, EventView

LARGEST_ID: Final = 2**53
MOST_WORDS: Final = 8
_TIME: Final = "A time with its zone, or how long ago."


class EventApi:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(self, *, events: EventStore, callers: Callers) -> None:
        self._events = events
        self._callers = callers

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        query = {
            "after": number("Only events with a larger id.", LARGEST_ID),
            "before": number("Only events with a smaller id.", LARGEST_ID),
            "order": one_of("`oldest` or `newest` first; without it the oldest.", ("newest", "oldest")),
            "limit": number("How many at most.", LARGEST_PAGE, example=20),
            "subject": text("Only events of this subject.", example="agent/vps-1"),
            "under": text("Only events whose subject begins so.", example="Route/shop/"),
            "type": text("Only events of this type.", longest=64, pattern=r"^[A-Za-z]+$", many=True),
            "severity": one_of("Only events of this severity.", ("error", "warning", "info"), many=True),
            "actor": text("Only what this one did.", example="person:ann"),
            "revision": text("Only events of this commit.", longest=64, pattern=r"^[0-9a-f]{4,64}$"),
            "q": text(f"Words, each in type, subject or message; {MOST_WORDS} at most.", longest=200),
            "since": text(f"Not before this. {_TIME}", example="6h", longest=40, pattern=TIME),
            "until": text(f"Before this. {_TIME}", longest=40, pattern=TIME),
        }
        return (
            Endpoint("GET", "/api/v1/events", "Timeline", self.events, "read", response=EventList, query=query),
            Endpoint("GET", "/api/v1/events/{event}", "One event", self.event, "read", response=EventView),
        )

    async def events(self, request: Request) -> Response:
        self._callers.caller(request, "read")
        query, limit = request.query_params, limit_of(request)
        newest_first = query.get("order", "oldest") == "newest"
        before = number_of(request, "before", 0, LARGEST_ID) if "before" in query else None
        found = await self._events.events(
            after=number_of(request, "after", 0, LARGEST_ID),
            before=before,
            limit=limit + 1,
            newest_first=newest_first,
            subject=query.get("subject"),
            wanted=self._wanted(request),
        )
        following = str(found[limit - 1].id) if len(found) > limit else ""
        return whole_answer(EventList(events=tuple(map(event_view, found[:limit])), next=following))

    def _wanted(self, request: Request) -> EventFilter:
        query, now = request.query_params, self._callers.clock()
        words = tuple(query.get("q", "").split())
        if len(words) > MOST_WORDS:
            raise Refused(f"q has more than {MOST_WORDS} words.", status=400, code="bad-query")
        return EventFilter(
            types=frozenset(query.getlist("type")),
            severities=frozenset(query.getlist("severity")),
            under=query.get("under", ""),
            actor=query.get("actor", ""),
            revision=query.get("revision", ""),
            words=words,
            since=moment_of(request, "since", now),
            until=moment_of(request, "until", now),
        )

    async def event(self, request: Request) -> Response:
        self._callers.caller(request, "read")
        text = request.path_params["event"]
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 16 else 0
        found = await self._events.events(after=number - 1, before=number + 1, limit=1) if number else ()
        if not found:
            hint = "The newest hundred thousand of the last ninety days are kept."
            raise Refused("There is no such event.", status=404, code="unknown-event", hint=hint)
        return whole_answer(event_view(found[0]))
