"""What is told, in words for people and as CloudEvents (v1.0.2). PURE.

Words of tenants and agents stand in it. In a chat they must stay words: nobody is called by ``@`` or ``<!channel>``,
and the only link is ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from reconciler.notifications.conditions import Kind, Notice
from reconciler.notifications.timing import MOST_IN_ONE
from schemas.notifications import Severity

LONGEST_TITLE: Final = 200
LONGEST_TEXT: Final = 600
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
_JOINER: Final = "\u2060"
"""Has no width and breaks no line; what stands on both sides of it is no mention and no address to a chat."""
_SIGN: Final[Mapping[Severity, str]] = {"error": "✖", "warning": "▲", "info": "●"}
_SAID: Final[Mapping[Kind, str]] = {
    "raised": "",
    "changed": "",
    "reminded": "Still: ",
    "recovered": "Over: ",
    "passed": "Came and went: ",
    "event": "",
    "test": "",
}


def inert(text: str, longest: int) -> str:
    """Return text of others for a chat: one line, and no mention, mark-up or link."""
    line = _CONTROL.sub(" ", text).strip()
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    line = line.replace("<", "‹").replace(">", "›")
    for mark in ("@", "://", "[", "]", "`", "*", "_", "#", "www."):
        line = line.replace(mark, mark[0] + _JOINER + mark[1:])
    return line


def title_of(fleet: str, notices: Sequence[Notice]) -> str:
    """Return the title of a message about at least one notice."""
    if len(notices) == 1:
        return f"{fleet}: {_headline(notices[0])}"
    over = sum(one.kind in ("recovered", "passed") for one in notices)
    return (
        f"{fleet}: {len(notices)} changes, {over} of them for the better"
        if over
        else f"{fleet}: {len(notices)} changes"
    )


def text_of(notices: Sequence[Notice], *, public_url: str, dropped: int = 0) -> str:
    """Return the body: one paragraph a notice, with a link to where something can be done."""
    shown = notices[:MOST_IN_ONE]
    parts = [_paragraph(one, public_url) for one in shown]
    if len(notices) > len(shown):
        parts.append(f"… and {len(notices) - len(shown)} more: {public_url}/")
    if dropped:
        parts.append(f"{dropped} older messages could not be told and were dropped: {public_url}/events")
    return "\n\n".join(parts)


def cloud_events(notices: Sequence[Notice], *, message_id: str, source: str) -> bytes:
    """Return the notices in the JSON batch format (CloudEvents JSON format, 4); ids stay the same in a second try."""
    return json.dumps(
        [_cloud_event(one, f"{message_id}.{number}", source) for number, one in enumerate(notices)],
        separators=(",", ":"),
    ).encode()


def _cloud_event(one: Notice, event_id: str, source: str) -> dict[str, Any]:
    condition = one.condition
    noun = "event" if one.kind == "event" else "condition"
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": f"org.cloudlunacy.{noun}.{one.kind}",
        "subject": condition.subject,
        "time": _moment(one.at),
        "datacontenttype": "application/json",
        "data": {
            "type": condition.type,
            "severity": condition.severity,
            "title": condition.title,
            "message": condition.message,
            "team": condition.team,
            "since": _moment(one.since),
            "url": f"{source}{condition.link}" if condition.link else "",
        },
    }


def _headline(one: Notice) -> str:
    sign = "✔" if one.kind in ("recovered", "passed") else _SIGN[one.condition.severity]
    return f"{sign} {_SAID[one.kind]}{inert(one.condition.title, LONGEST_TITLE)}"


def _paragraph(one: Notice, public_url: str) -> str:
    condition = one.condition
    lines = [_headline(one)]
    if condition.message and one.kind not in ("recovered", "passed"):
        lines.append(inert(condition.message, LONGEST_TEXT))
    if one.kind != "event":
        lines.append(
            f"Since {_moment(one.since)}"
            if one.kind != "recovered"
            else f"From {_moment(one.since)} to {_moment(one.at)}"
        )
    if condition.link:
        lines.append(f"{public_url}{condition.link}")
    return "\n".join(lines)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
