"""What the control plane says when it refuses: problem details (RFC 9457), as far as they can be printed."""

from __future__ import annotations

import json
from typing import Any, Final

LONGEST: Final = 1000
"""Characters of what is printed: it may come from anybody who answers at the address."""


def code_of(body: bytes | None) -> str:
    """Return the code of a problem, "" where there is none."""
    return str(_problem(body).get("type", "")).rpartition(":")[2]


def detail_of(body: bytes | None) -> str:
    """Return what went wrong, field by field where it says so, and what to do; "" where the body is no problem."""
    problem = _problem(body)
    parts = [problem.get("detail", ""), *map(_field, _errors(problem)), problem.get("hint", "")]
    return printable(" ".join(str(part) for part in parts if part))


def printable(text: str) -> str:
    """Return a bounded text without control characters."""
    return "".join(character if character.isprintable() else " " for character in text)[:LONGEST].strip()


def _errors(problem: dict[str, Any]) -> list[dict[str, Any]]:
    errors = problem.get("errors")
    return [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []


def _field(error: dict[str, Any]) -> str:
    return f"{error.get('field') or 'the body'}: {error.get('message', '')}."


def _problem(body: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(body or b"")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
