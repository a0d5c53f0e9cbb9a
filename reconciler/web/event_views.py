"""What the API, the feed and pages show of an event."""

from __future__ import annotations

from datetime import UTC, datetime

from reconciler.store.protocols import Event
from schemas.api import EventView


def event_view(event: Event) -> EventView:
    """Return an event as the API shows it."""
    return EventView(
        id=event.id,
        time=datetime.fromtimestamp(event.time, UTC),
        type=event.type,
        severity=event.severity,
        subject=event.subject,
        message=event.message,
        revision=event.revision,
        actor=event.actor,
    )
