"""Lines that nobody touched stay, and two changes meet only where they touch the same lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.changes.lines import carried_over, merged

LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "  # d\n", "\n"]), max_size=8).map("".join)


def test_changes_of_different_lines_come_together() -> None:
    """Each side keeps what it changed."""
    assert merged("a\nb\nc\n", "A\nb\nc\n", "a\nb\nC\n") == "A\nb\nC\n"


def test_changes_of_the_same_line_conflict() -> None:
    """Nobody knows which of two changes of one line counts."""
    assert merged("a\nb\nc\n", "a\nB\nc\n", "a\nX\nc\n") is None


@given(LINES, LINES)
def test_one_change_alone_is_taken(base: str, changed: str) -> None:
    """A change of one side is the result, whichever side it is; the same change twice is made once."""
    assert merged(base, changed, base) == changed
    assert merged(base, base, changed) == changed
    assert merged(base, changed, changed) == changed


@given(LINES, LINES)
def test_a_change_of_an_equal_copy_is_the_change(text: str, edited: str) -> None:
    """Where the copy is the text, the result is the edited copy."""
    assert carried_over(text, text, edited, keep_comments=False) == edited


@given(LINES, LINES)
def test_a_copy_that_was_not_changed_changes_nothing(text: str, copy: str) -> None:
    """However the copy looks, the text stays as it is."""
    assert carried_over(text, copy, copy) == text
