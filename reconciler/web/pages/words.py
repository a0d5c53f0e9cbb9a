"""How values are written on pages: states with a tone, times, links. PURE but for the clock that is handed in."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal
from urllib.parse import quote, urlsplit

from schemas.text import visible

Tone = Literal["good", "busy", "warn", "bad", "idle"]
_TONES: Final[dict[Tone, str]] = {
    "good": "converged inservice connected true active applied done healthy good valid serving committed enabled "
    "loaded enrolled succeeded ok added create up",
    "busy": "progressing pending starting changing waiting proposed renewing issuing distribute activate prepare wait "
    "changed update",
    "warn": "held paused lastgood silent cordoned drained warning expiring superseded unhealthy conflicted removed "
    "delete retained draining stale due",
    "bad": "failed quarantined false unreachable error expired revoked broken lost",
    "idle": "unknown offline stopped none info nothing disabled unused",
}
TONE_OF: Final[dict[str, Tone]] = {word: tone for tone, words in _TONES.items() for word in words.split()}
SHAPE_OF: Final[dict[Tone, str]] = {"good": "●", "busy": "◐", "warn": "▲", "bad": "■", "idle": "○"}
"""Each tone has a shape, for who does not see colours."""
_ID: Final = re.compile(r"\b[0-9a-f]{32,64}\b")
_STEPS: Final = ((60.0, 1.0, "s"), (3600.0, 60.0, "min"), (86400.0, 3600.0, "h"), (86400.0 * 400, 86400.0, "d"))


def tone(status: object) -> Tone:
    """Return the tone of a state, such as ``Converged`` or ``last-good``; what is not known is ``idle``."""
    return TONE_OF.get(str(status).lower().replace("-", "").replace(" ", ""), "idle")


def shape(status: object) -> str:
    """Return the shape that stands beside a state."""
    return SHAPE_OF[tone(status)]


def utc(moment: datetime | float) -> datetime:
    """Return a time in UTC; numbers are POSIX seconds."""
    return moment.astimezone(UTC) if isinstance(moment, datetime) else datetime.fromtimestamp(moment, UTC)


def iso(moment: datetime | float) -> str:
    """Return a time for machines (RFC 3339)."""
    return utc(moment).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def stamp(moment: datetime | float) -> str:
    """Return a time for people, to the second."""
    return utc(moment).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(seconds: float) -> str:
    """Return how long something takes, in two figures or so: ``80 ms``, ``3.4 s``, ``2 min 5 s``, ``3 d 4 h``."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    if seconds < 86400:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds // 86400:.0f} d {seconds % 86400 // 3600:.0f} h"


def ago(moment: datetime | float, now: float) -> str:
    """Return how long ago a time is, or how far ahead: ``12 s ago``, ``in 3 d``; far ones as a date."""
    distance = utc(moment).timestamp() - now
    for below, unit, name in _STEPS:
        if abs(distance) < below:
            count = f"{abs(distance) // unit:.0f} {name}"
            return f"in {count}" if distance > 0 else f"{count} ago"
    return utc(moment).strftime("%Y-%m-%d")


def number(value: float) -> str:
    """Return a number with thin groups of three, without a tail of zeros."""
    text = f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:,.2f}".rstrip("0")
    return text.replace(",", "\u202f")


def octets(value: float) -> str:
    """Return an amount of bytes, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def segment(text: object) -> str:
    """Return text as one segment of a path, so that it can name no other page."""
    return quote(str(text), safe="", errors="surrogateescape")


def within(text: object) -> str:
    """Return text as the rest of a path: its slashes count."""
    return quote(str(text), safe="/", errors="surrogateescape")


def shortened(text: str) -> str:
    """Return text with ids in it cut to what tells them apart; git's usual ten digits."""
    return _ID.sub(lambda found: f"{found[0][:10]}…", text)


def external(url: object) -> str:
    """Return a URL that a link may lead to, else an empty one: ``javascript:`` and the like lead nowhere."""
    parts = urlsplit(str(url))
    return str(url) if parts.scheme in ("http", "https") and parts.netloc else ""


def local_path(text: str, otherwise: str = "/") -> str:
    """Return a path on this site to go on to after a form, never another site."""
    is_path = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and "\\" not in text
    return text if is_path and len(text) <= 2000 else otherwise


def filters(clock: Callable[[], float]) -> dict[str, Callable[..., object]]:
    """Return the filters that templates know."""
    return {
        "tone": tone,
        "shape": shape,
        "iso": iso,
        "stamp": stamp,
        "span": span,
        "ago": lambda moment: ago(moment, clock()),
        "number": number,
        "octets": octets,
        "seg": segment,
        "within": within,
        "external": external,
        "shortened": shortened,
        "visible": visible,
    }
