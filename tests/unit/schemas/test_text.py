"""Text from outside is made visible before anybody sees it."""

from __future__ import annotations

import pytest

from schemas.problem import Problem
from schemas.session import Report
from schemas.text import visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a plain text – with ümlauts", "a plain text – with ümlauts"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x9b2J\x7f\x00", "\\x9b2J\\x7f\\x00"),
        ("txt.\u202egnp", "txt.\\u202egnp"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_has_no_shape_is_written_as_an_escape(text: str, expected: str) -> None:
    """Control characters, marks of direction and lone surrogates are shown; all else stays as it is."""
    assert visible(text) == expected


def test_a_problem_cannot_command_a_terminal() -> None:
    """A file may have any name in git; its problem is one printable line."""
    problem = Problem(file="routes/\x1b]0;owned\x07.yaml", code="misplaced-file", message="no\nwhere")
    assert str(problem).isprintable()


def test_an_agent_cannot_command_a_terminal() -> None:
    """What an agent reports is printable from the moment it is read."""
    said = '{"sequence": 1, "generation": 1, "outcome": "failed", "reason": "\\u001b[2J", "message": "\\u009b31m"}'
    report = Report.model_validate_json(said)
    assert (report.reason, report.message) == ("\\x1b[2J", "\\x9b31m")
