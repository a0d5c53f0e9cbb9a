"""What may stand behind the question mark: numbers, times and pages."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from starlette.requests import Request

from reconciler.errors import Refused

PAGE: Final = 100
LARGEST_PAGE: Final = 1000
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def next_names(
    names: Sequence[str], after: str, limit: int, keep: Callable[[str], bool] = lambda _: True
) -> tuple[list[str], str]:
    """Return the next of sorted names that are kept, and what to ask for those that follow; empty on the end.

    No more are looked at than it takes to find one too many. What comes or goes between two pages neither doubles nor
    hides another name.
    """
    found: list[str] = []
    for place in range(bisect_right(names, after) if after else 0, len(names)):
        if keep(names[place]):
            if len(found) == limit:
                return found, found[-1]
            found.append(names[place])
    return found, ""


def moment_of(request: Request, name: str, now: float) -> float | None:
    """Read a time with its zone, or how long ago something is, as POSIX seconds.

    Raises:
        Refused: 400 ``bad-query``.
    """
    text = request.query_params.get(name)
    if text is None:
        return None
    if re.fullmatch(r"[1-9][0-9]{0,5}[smhd]", text, re.ASCII):
        return now - int(text[:-1]) * _UNITS[text[-1]]
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return found.timestamp()
    except (ValueError, OverflowError, OSError):
        pass
    hint = "Write it like 2030-01-31T12:00:00Z, or 6h for six hours ago."
    raise Refused(f"{name} must be a time.", status=400, code="bad-query", hint=hint)


def limit_of(request: Request) -> int:
    """Return how many are asked for."""
    return max(1, number_of(request, "limit", PAGE, LARGEST_PAGE))


def number_of(request: Request, name: str, default: int, largest: int) -> int:
    """Read a whole number.

    Raises:
        Refused: 400 ``bad-query``.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 20 or int(text) > largest:
        raise Refused(f"{name} must be a whole number up to {largest}.", status=400, code="bad-query")
    return int(text)


def seconds_of(request: Request, default: float, longest: float) -> float:
    """Read the time that something may take.

    Raises:
        Refused: 400 ``bad-query``.
    """
    text = request.query_params.get("seconds")
    if text is None:
        return default
    try:
        value = float(text) if text.isascii() and len(text) <= 20 else math.nan
    except ValueError:
        value = math.nan
    if not 0 < value <= longest:
        raise Refused(f"seconds must be a number above 0, up to {longest:g}.", status=400, code="bad-query")
    return value
