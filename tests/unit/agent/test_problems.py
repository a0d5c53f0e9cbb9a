"""What the control plane refused, as the agent prints it."""

from __future__ import annotations

import json

import pytest

from agent.problems import LONGEST, code_of, detail_of

BODIES = [None, b"", b"<html>", b"[]", b"null", b"[" * 100_000, b"\xff", b'{"errors": [1, null]}']


def test_every_reason_is_said() -> None:
    """The sentence, each field that is wrong, and what to do."""
    problem = {
        "type": "urn:cloudlunacy:problem:invalid-request",
        "detail": "The request is not valid: 2 problem(s).",
        "errors": [{"field": "name", "message": "is no name"}, {"field": "", "message": "Invalid JSON"}],
        "hint": "Mend them.",
    }
    body = json.dumps(problem).encode()
    said = "The request is not valid: 2 problem(s). name: is no name. the body: Invalid JSON. Mend them."
    assert (code_of(body), detail_of(body)) == ("invalid-request", said)


@pytest.mark.parametrize(
    "body", [None, b"", b"<html>", b"[]", b"null", b"[" * 100_000, b"\xff", b'{"errors": [1, null]}']
)
def test_what_is_no_problem_says_nothing(body: bytes | None) -> None:
    """Whatever answers at the address, nothing is made of it, and nothing breaks."""
    assert (code_of(body), detail_of(body)) == ("", "")


def test_what_is_said_can_be_printed() -> None:
    """No control character reaches the terminal, and not more than a paragraph."""
    said = detail_of(json.dumps({"detail": "a\x1b[31m\nb" + "x" * 9999}).encode())
    assert said.startswith("a [31m b")
    assert len(said) == LONGEST
