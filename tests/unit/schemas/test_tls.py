"""What is said of a TLS connection that cannot be had."""

from __future__ import annotations

import pytest

from schemas.tls import speaks_no_tls, untrusted


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (19, "not trusted here"),
        (20, "not trusted here"),
        (10, "has expired"),
        (9, "seems to be behind"),
        (62, "for other names"),
        (64, "for other names"),
        (47, "permitted subtree violation"),
    ],
)
def test_each_reason_has_its_sentence(code: int, said: str) -> None:
    """The server is named, and so is what to look at; a reason that is rare keeps the words of OpenSSL."""
    text = untrusted(code, "permitted subtree violation", "https://plane.test")
    assert said in text
    assert "https://plane.test" in text


def test_a_reason_without_words_is_told_by_its_number() -> None:
    """Nothing is left blank."""
    assert "OpenSSL says 99" in untrusted(99, "", "https://plane.test")


@pytest.mark.parametrize(("reason", "expected"), [("WRONG_VERSION_NUMBER", True), ("", False), ("NO_CIPHERS", False)])
def test_plain_http_is_told_from_other_failures(reason: str, expected: bool) -> None:
    """Only what another protocol looks like counts."""
    assert speaks_no_tls(reason) is expected
