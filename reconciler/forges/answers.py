"""What an answer of a forge means. PURE: status, headers and body in, an error or a time to wait out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from reconciler.errors import Broken, CloudLunacyError, Rejected, Transient
from reconciler.git.cleaning import cleaned, one_line

SECONDARY_SECONDS: Final = 60.0
"""What GitHub asks for where it says no time (REST: "Exceeding the rate limit")."""
LONGEST_WAIT: Final = 3600.0
_MOST_DIGITS: Final = 12
_MOST_WORDS: Final = 300
_NEXT: Final = re.compile(r'<([^<>]{1,4096})>\s*;[^,<]{0,200}?rel="?next"?')


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers`` with names in lower case; ``body`` is cut at the limit of the connection."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 - JSON
        """Return what the body says.

        Raises:
            Transient: it is no JSON, such as the page of a proxy.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            text = "the forge answers with something else than JSON."
            raise Transient(text, reason="ForgeUnavailable") from None


def failure(answer: Answer, asked: str, now: float) -> CloudLunacyError | None:
    """Return the error that an answer stands for, None for a success.

    Args:
        answer: as it came.
        asked: method and path, for people.
        now: POSIX seconds.
    """
    if 200 <= answer.status < 300:
        return None
    said = words(answer.body)
    text = f"{asked} is answered {answer.status}" + (f": {said}" if said else "")
    text = text if text.endswith((".", "!")) else f"{text}."
    if is_limited(answer, said):
        return Transient(text, reason="ForgeRateLimited", retry_after=wait_of(answer.headers, now))
    if answer.status >= 500 or answer.status == 408:
        after = wait_of(answer.headers, now) if "retry-after" in answer.headers else None
        return Transient(text, reason="ForgeUnavailable", retry_after=after)
    if answer.status < 400:
        return Broken(
            text, hint="The repository has moved, or the URL of the API is wrong: redirects are not followed."
        )
    if answer.status == 401:
        return Broken(text, hint="The token is wrong or has expired: put a new one into its file.")
    if answer.status == 403:
        return Broken(text, hint="The token lacks a permission; docs/pull-requests.md lists what it needs.")
    if answer.status == 404:
        return Broken(text, hint="The repository is not there under this name, or the token may not see it.")
    return Rejected(text, reason="ForgeRefused")


def is_limited(answer: Answer, said: str) -> bool:
    """Say whether the forge asks for fewer requests; GitHub does it with 403 as well."""
    if answer.status == 429:
        return True
    spent = answer.headers.get("x-ratelimit-remaining") == "0" or "retry-after" in answer.headers
    return answer.status == 403 and (spent or "rate limit" in said.lower())


def wait_of(headers: Mapping[str, str], now: float) -> float:
    """Return the least seconds to wait: Retry-After (RFC 9110, 10.2.3), else when the limit is reset, else a minute."""
    if (after := headers.get("retry-after", "").strip()) and (seconds := _seconds(after, now)) is not None:
        return seconds
    for name in ("x-ratelimit-reset", "ratelimit-reset"):
        at = headers.get(name, "").strip()
        if at.isdecimal() and len(at) <= _MOST_DIGITS:
            return min(LONGEST_WAIT, max(1.0, int(at) - now))
    return SECONDARY_SECONDS


def _seconds(after: str, now: float) -> float | None:
    if after.isdecimal():
        return min(LONGEST_WAIT, float(after[:_MOST_DIGITS]))
    try:
        return min(LONGEST_WAIT, max(1.0, parsedate_to_datetime(after).timestamp() - now))
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def words(body: bytes) -> str:
    """Return what a forge says of a failure, on one line. Each of them has a form of its own for that."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    found = list(_texts(document))
    return one_line(cleaned("; ".join(dict.fromkeys(found)), limit=_MOST_WORDS))


def _texts(said: Any) -> list[str]:  # noqa: ANN401 - JSON
    """``message`` is a text, a list, or lists by field; GitHub adds ``errors``, Bitbucket wraps it in ``error``."""
    if isinstance(said, str):
        return [said]
    if isinstance(said, list):
        return [text for one in said[:5] for text in _texts(one)]
    if not isinstance(said, dict):
        return []
    known = [name for name in ("message", "error", "error_description", "errors", "detail", "fields") if name in said]
    if known:
        return [text for name in known for text in _texts(said[name])]
    return [
        f"{name} {text}" for name, one in list(said.items())[:5] for text in _texts(one) if name != "documentation_url"
    ]


def next_query(answer: Answer) -> dict[str, str] | None:
    """Return the query of the next page by the Link header (RFC 8288), None on the last one.

    Of the link only its query counts: host and path stay ours, whatever an answer says.
    """
    found = _NEXT.search(answer.headers.get("link", "")[:16384])
    return None if found is None else query_of(found[1])


def query_of(url: str) -> dict[str, str] | None:
    """Return the query of a URL that a forge gave, None where there is none."""
    try:
        return dict(parse_qsl(urlsplit(url).query, max_num_fields=50)) or None
    except ValueError:
        return None
