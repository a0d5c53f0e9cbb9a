"""Text from outside stays text, in whatever place of a comment it stands."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.forges.markdown import code, fence, fitting
from reconciler.forges.proposals import proposal_of

NASTY = st.text(alphabet="`|\\ <>@#[]()!~*_-\n\r\t\x00\u202eab/:", max_size=60)
SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)


@given(NASTY)
def test_a_code_span_ends_where_we_end_it(text: str) -> None:
    """One span (CommonMark 6.1) without line ends or pipes, and nothing before or behind it."""
    span = code(text)
    if not span:
        assert not text.split()
        return
    found = SPAN.fullmatch(span)
    assert found is not None, span
    assert "|" not in span
    assert span.isprintable()
    assert SPAN.match(span).group(0) == span  # type: ignore[union-attr]


@given(NASTY)
def test_a_fence_ends_where_we_end_it(text: str) -> None:
    """No line of the text is as long a row of backticks as the one that ends the block (CommonMark 4.5)."""
    lines = fence(text).split("\n")
    mark = lines[-1]
    assert lines[0] == f"{mark}text"
    assert set(mark) == {"`"}
    assert not any(mark in line for line in lines[1:-1])


@pytest.mark.parametrize(
    "text", ["@everyone", "<img src=x onerror=alert(1)>", "[x](https://evil.test)", "#1", "</details>"]
)
def test_mentions_links_and_html_stand_in_code(text: str) -> None:
    """Where every forge leaves them alone."""
    assert code(text) == f"`{text}`"


def test_a_long_text_is_cut() -> None:
    """With a sign that something is missing."""
    assert code("x" * 1000, 10) == f"`{'x' * 9}…`"


def test_a_comment_that_is_too_long_is_cut_between_lines() -> None:
    """What was folded is closed, the note stands at the end, and the limit holds."""
    lines = [
        "head",
        "<details open><summary>x</summary>",
        *(f"| row {number} |" for number in range(1000)),
        "</details>",
    ]
    text = fitting(lines, 500, "*cut*")
    assert len(text) <= 500
    assert text.endswith("|\n\n</details>\n\n*cut*")
    assert fitting(["short"], 500, "*cut*") == "short"


def test_the_words_of_a_proposal_do_nothing() -> None:
    """A message that a person or an agent wrote is shown as it is, and the title is one line of bounded length."""
    found = proposal_of("change/1", "main", "x" * 500 + "\n@all", "@everyone ```\n<b>", "https://control.test")
    assert len(found.title) <= 200
    assert found.body.startswith("````text\n@everyone ```\n<b>\n````\n\nOpened by the control plane")
