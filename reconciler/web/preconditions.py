"""Conditional requests (RFC 9110, 13) on objects, whose entity tag is the id of their blob."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from reconciler.errors import Refused

_TAG: Final = re.compile(r'\s*(W/)?"([!#-~]*)"\s*')


@dataclass(frozen=True, slots=True)
class Tags:
    """What a header names: ``anything`` for ``*``."""

    anything: bool
    values: tuple[str, ...]
    weak: tuple[str, ...] = ()
    """Tags that count for reading alone."""


def if_match(request: Request) -> Tags | None:
    """Return what If-Match names, None without the header.

    Raises:
        Refused: 400 ``bad-condition``.
    """
    return _tags(request, "if-match")


def if_none_match(request: Request) -> Tags | None:
    """Return what If-None-Match names, None without the header.

    Raises:
        Refused: 400 ``bad-condition``.
    """
    return _tags(request, "if-none-match")


def require_match(wanted: Tags | None, blob: str, *, revision: str) -> None:
    """Refuse a change of another version than the caller saw. ``blob``: of what is there; empty where nothing is.

    The comparison is strong (8.8.3.2). ``revision``, the newest, is taken as well: who has just read all of it knows
    what it holds.

    Raises:
        Refused: 412 ``changed-since``.
    """
    if wanted is None or (wanted.anything and blob) or (blob and blob in wanted.values) or revision in wanted.values:
        return
    text = "The object was changed since you looked at it." if blob else "There is no such object any more."
    hint = "Look at the new version, and make the change again."
    raise Refused(text, status=412, code="changed-since", hint=hint, more={"revision": revision, "blob": blob})


def is_known(wanted: Tags | None, tag: str) -> bool:
    """Say whether who reads has this version already; the comparison is weak."""
    return wanted is not None and (wanted.anything or tag in (*wanted.values, *wanted.weak))


def _tags(request: Request, header: str) -> Tags | None:
    lines = request.headers.getlist(header)
    if not lines:
        return None
    text = ",".join(lines).strip()
    if text == "*":
        return Tags(True, ())
    found = [_TAG.fullmatch(part) for part in text.split(",")]
    if not all(found):
        raise Refused(f'{header} must be * or a list of "tags".', status=400, code="bad-condition")
    strong = tuple(one[2] for one in found if one is not None and not one[1])
    return Tags(False, strong, tuple(one[2] for one in found if one is not None and one[1]))
