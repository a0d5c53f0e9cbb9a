"""``GET /events``: the timeline, newest first, searched by what the form above it says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from reconciler.errors import Refused
from reconciler.store.protocols import EventFilter, EventStore
from reconciler.web.endpoint import Endpoint
from reconciler.web.event_api import MOST_WORDS
from reconciler.web.event_views import event_view
from reconciler.web.pages.kit import Site
from reconciler.web.pages.words import segment, within
from reconciler.web.queries import number_of

PAGE: Final = 50
FIELDS: Final = ("q", "severity", "type", "subject", "actor", "since", "until")
_LONGEST: Final = 200
_PLACES: Final = {
    "agent": "/agents/",
    "certificate": "/certificates/",
    "revision": "/revisions/",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the form says, as it was written; ``errors`` by field."""

    fields: dict[str, str]
    wanted: EventFilter
    errors: dict[str, str]

    @property
    def is_empty(self) -> bool:
        """Whether everything is wanted."""
        return not any(self.fields.values())

    def link(self, **more: object) -> str:
        """Return the address of this search."""
        pairs = {name: value for name, value in self.fields.items() if value} | more
        return f"/events?{urlencode(pairs)}" if pairs else "/events"


class EventsPage:
    """The page; ``endpoints()`` is the table."""

    def __init__(self, *, site: Site, events: EventStore) -> None:
        self._site = site
        self._events = events

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (Endpoint("GET", "/events", "Timeline", self.timeline, "read", page=True),)

    async def timeline(self, request: Request) -> Response:
        """One page of what was asked for."""
        identity = self._site.caller(request)
        asked = read(request.query_params)
        before = number_of(request, "before", 0, 2**53) or None
        found = await self._events.events(before=before, limit=PAGE + 1, newest_first=True, wanted=asked.wanted)
        shown = [(event_view(one), place_of(one.subject)) for one in found[:PAGE]]
        return await self._site.render(
            request,
            identity,
            "events.html.j2",
            asked=asked,
            events=shown,
            first=asked.link() if before is not None else "",
            next=asked.link(before=found[PAGE - 1].id) if len(found) > PAGE else "",
        )


def read(query: QueryParams) -> Asked:
    """Read the form. What cannot be read is said beside its field, and asks for nothing."""
    fields = {name: query.get(name, "").strip()[:_LONGEST] for name in FIELDS}
    errors: dict[str, str] = {}
    times: dict[str, float | None] = {}
    for name in ("since", "until"):
        try:
            times[name] = _time(fields[name])
        except ValueError:
            times[name] = None
            errors[name] = "Give a day or a time (UTC), such as 2026-11-22 or 2026-11-22T14:30."
    if fields["severity"] not in ("", "info", "warning", "error"):
        raise Refused("severity is info, warning or error.", status=400, code="bad-query")
    severities = {"": (), "info": ("info",), "warning": ("warning", "error"), "error": ("error",)}[fields["severity"]]
    words = tuple(fields["q"].split())
    if len(words) > MOST_WORDS:
        errors["q"] = f"The first {MOST_WORDS} words are searched for."
    wanted = EventFilter(
        types=frozenset({fields["type"]} - {""}),
        severities=frozenset(severities),
        under=fields["subject"],
        actor=fields["actor"],
        words=words[:MOST_WORDS],  # each is looked for in every event
        since=times["since"],
        until=times["until"],
    )
    return Asked(fields, wanted, errors)


def _time(text: str) -> float | None:
    if not text:
        return None
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def place_of(subject: str) -> str:
    """Return where a subject is looked at; empty where it has no page."""
    kind, _, name = subject.partition("/")
    if not name:
        return ""
    if kind in _PLACES:
        return _PLACES[kind] + segment(name)
    match kind.lower(), name.split("/"):
        case "deployment", [team, of_team]:
            return f"/deployments/{segment(team)}/{segment(of_team)}"
        case "route", [team, of_team]:
            return f"/objects/routes/{within(team)}/{within(of_team)}.yaml"
        case "token", _:
            return "/tokens"
        case _:
            return ""
