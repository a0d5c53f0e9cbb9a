"""Words of a remote, made safe to show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.git.cleaning import cleaned, one_line


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP1;2q sixel \x1b\\after", "after"),
        ("\x9b31mred", "red"),
        ("\x1bcreset", "reset"),
        ("10%\r50%\r100%\nnext\r\n", "100%\nnext"),
        ("a\x08\x00b\u202e", "ab"),
        (b"caf\xc3\xa9 \xff", "café \ufffd"),
        ("fatal: https://user:pass@host/x", "fatal: https://***@host/x"),
        ("fatal: 'https://token@host/x'", "fatal: 'https://***@host/x'"),
        ("ssh://git@host/x", "ssh://***@host/x"),
        ("> Authorization: Basic c2VjcmV0", "> Authorization: Basic ***"),
    ],
)
def test_what_is_shown(raw: str | bytes, shown: str) -> None:
    """Escape codes, control characters and credentials go; the words stay."""
    assert cleaned(raw) == shown


def test_secrets_are_replaced() -> None:
    """A secret goes wherever it stands, an empty one does not matter."""
    assert cleaned("key s3cret!", secrets=["s3cret", ""]) == "key ***!"


def test_long_words_are_cut() -> None:
    """Of endless words the beginning is shown, and that there was more."""
    assert cleaned("x" * 12, limit=10) == "xxxxxxxxxx … (2 more characters)"


def test_one_line() -> None:
    """Lines and tabs become single spaces."""
    assert one_line(" a\n\n b\tc ") == "a b c"


@given(st.text() | st.binary())
def test_nothing_unprintable_is_left(raw: str | bytes) -> None:
    """Whatever comes, no control or bidirectional character but tab and line feed is left."""
    shown = cleaned(raw)
    assert not [character for character in shown if ord(character) < 0x20 and character not in "\t\n"]
    assert not set(shown) & {"\x1b", "\x7f", "\x9b", "\u202e", "\u2066"}
