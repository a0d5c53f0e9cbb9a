"""What one HTTP exchange with an ACME server may cost, at the seam that ``requests`` has for it.

- TLS always, against one CA bundle; ``http://`` URLs that a server hands out are not followed, nor are redirects.
- Nothing from the environment: no proxy, no ``.netrc``, no CA bundle.
- Time and size are bounded as a whole; a time-out of ``requests`` alone begins anew with each byte.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

PIECE_BYTES: Final = 64 * 1024


class BoundedAdapter(HTTPAdapter):
    """``ca_file``: the only roots that are trusted; None for those that ``requests`` brings along. Times in seconds."""

    def __init__(self, ca_file: Path | None, *, connect_seconds: float, seconds: float, max_bytes: int) -> None:
        super().__init__()
        self._verify = True if ca_file is None else str(ca_file)
        self._connect_seconds = connect_seconds
        self._seconds = seconds
        self._max_bytes = max_bytes
        self.retry_after: float | None = None
        """What the last answer said, in seconds from its arrival."""
        self.status = 0
        """Of the last answer; 0 when there was none."""

    def send(self, request: requests.PreparedRequest, *_: object, **__: object) -> requests.Response:
        """Send, and read the whole answer. What the caller says about time and trust does not count.

        Raises:
            requests.RequestException: no answer, or one that is too long or too slow.
        """
        self.retry_after, self.status = None, 0
        deadline = time.monotonic() + self._seconds
        timeout = (self._connect_seconds, self._seconds)
        response = super().send(request, stream=True, timeout=timeout, verify=self._verify)
        self.status = response.status_code
        self.retry_after = seconds_of(response.headers.get("Retry-After"), lambda: datetime.now(UTC))
        try:
            body = self._body(response, deadline)
        except HTTPError as error:
            raise requests.ConnectionError(error, request=request) from error
        finally:
            response.close()
        response.raw = io.BytesIO(body)
        return response

    def _body(self, response: requests.Response, deadline: float) -> bytes:
        body = bytearray()
        while piece := response.raw.read1(PIECE_BYTES, decode_content=True):
            body += piece
            if len(body) > self._max_bytes:
                raise requests.exceptions.ContentDecodingError(f"the answer is longer than {self._max_bytes} bytes")
            if time.monotonic() > deadline:
                raise requests.ReadTimeout(f"the answer took longer than {self._seconds:g} s")
        return bytes(body)


def bind(session: requests.Session, adapter: BoundedAdapter) -> None:
    """Let every exchange of ``session`` go through ``adapter``, and none anywhere else."""
    for scheme in list(session.adapters):
        session.adapters.pop(scheme).close()
    session.mount("https://", adapter)
    session.trust_env = False
    session.max_redirects = 0


def seconds_of(retry_after: str | None, now: Callable[[], datetime]) -> float | None:
    """Read a ``Retry-After`` (RFC 9110, 10.2.3): seconds, or a date. None for what is neither."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now()).total_seconds())
