from __future__ import annotations

from datetime import UTC, datetime

import pytest
import requests

from reconciler.pki.acme.transport import BoundedAdapter, bind, seconds_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120),
        (" 5 ", 5),
        ("0", 0),
        ("9" * 400, 999_999_999),
        ("Sun, 01 Mar 2026 12:01:00 GMT", 60),
        ("Sun, 01 Mar 2026 13:01:00 +0100", 60),
        ("Sun, 01 Mar 2026 12:01:00", 60),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("Sun, 99 Mar 2026 11:00:00 GMT", None),
        ("Sun, 01 Mar 99999 11:00:00 GMT", None),
        ("٣", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    """Both forms of RFC 9110; anything else is as if nothing had been said."""
    assert seconds_of(header, lambda: NOW) == seconds


def test_a_session_that_is_bound_goes_no_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """No plain http, no proxy and no credentials of the environment."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    session = requests.Session()
    bind(session, BoundedAdapter(None, connect_seconds=1, seconds=1, max_bytes=1))
    assert list(session.adapters) == ["https://"]
    assert not session.trust_env
    with pytest.raises(requests.exceptions.InvalidSchema):
        session.get("http://127.0.0.1/")
