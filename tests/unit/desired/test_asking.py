"""From a URL that a person writes to a question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.asking import NoQuestion, cleaned, question, routing_path


@pytest.mark.parametrize(
    ("text", "understood"),
    [
        ("web.example.com", "https://web.example.com/"),
        ("HTTP://Web.Example.com:8080/a/../b//c/./d/?q=1", "http://web.example.com:8080/b/c/d/?q=1"),
        ("https://user:secret@a.test/%7Eme%2fx", "https://a.test/~me%2Fx"),
        ("https://bücher.test/ü", "https://xn--bcher-kva.test/%C3%BC"),
        ("mongodb://u:p@vps-1.mongodb.test:27017,other/db?tls=true", "mongodb://vps-1.mongodb.test:27017"),
        ("tls://mail.test", "tls://mail.test"),
    ],
)
def test_a_url_is_understood_as_a_front_understands_it(text: str, understood: str) -> None:
    """Scheme and host in lower case, dot segments gone, nothing of a password left."""
    assert question(text).url == understood


@pytest.mark.parametrize(
    "text", ["", "ftp://a.test/", "https:///x", "https://a.test:99999/", "https://[::1", "https://a b/", "x" * 3000]
)
def test_what_is_no_url_is_refused_with_a_reason(text: str) -> None:
    """The message is for people."""
    with pytest.raises(NoQuestion, match=r"\.$"):
        question(text)


def test_a_connection_string_says_whether_it_wants_tls() -> None:
    """Drivers use TLS only where they are told to, or with +srv."""
    assert not question("mongodb://a.test/db").tls
    assert question("mongodb://a.test/db?ssl=true").tls
    assert question("mongodb+srv://a.test/db").tls


@given(st.text(max_size=200))
def test_no_text_makes_it_fail_otherwise(text: str) -> None:
    """Whatever is asked, the answer is a question or a sentence."""
    try:
        found = question(text)
    except NoQuestion:
        return
    assert found.url.startswith(f"{found.scheme}://")
    assert cleaned(found.path) == found.path or found.path == ""


def test_reserved_characters_stay_encoded_for_rules() -> None:
    """RFC 3986: an encoded slash is no slash, an encoded space is a space."""
    assert routing_path("/a%2Fb%20c") == "/a%2Fb c"
