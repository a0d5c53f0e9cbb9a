"""What may stand behind the question mark: numbers, times and pages."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from starlette.requests import Request

from reconciler.errors import Refused

PAGE: Final = 100
LARGEST_PAGE: Final = 1000


def page_of(request: Request, names: Iterable[str]) -> tuple[list[str], str]:
    """Return one page of sorted names, and what to ask for the next one with."""
    after, limit = request.query_params.get("after", ""), limit_of(request)
    rest = sorted(name for name in names if name > after)
    return rest[:limit], rest[limit - 1] if len(rest) > limit else ""


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
