"""A problem before anybody has looked up its line.

Checks know the field, not where it stands: positions are computed only for the few documents that have problems,
because a parser that keeps positions costs a hundred times the one that does not.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from schemas.problem import Problem, Severity

FieldPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """``field`` leads from the document's root to the value, such as ``("spec", "backends", 0, "agent")``."""

    path: str
    code: str
    message: str
    hint: str = ""
    field: FieldPath = ()
    severity: Severity = "error"
    at_key: bool = False
    """Point at the field's name instead of its value."""
    position: tuple[int, int] | None = None
    """Line and column (1-based) where they are known already."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``Did you mean "x"?`` for the closest known word, or an empty string."""
    if len(word) > 100:
        return ""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'Did you mean "{close[0]}"?' if close else ""


def to_problem(finding: Finding, position: tuple[int, int], subject: str) -> Problem:
    """Turn a finding into what a person reads."""
    ended = finding.message.endswith((".", "!", "?"))
    return Problem(
        file=finding.path,
        line=position[0],
        column=position[1],
        code=finding.code,
        severity=finding.severity,
        message=finding.message if ended else f"{finding.message}.",
        hint=finding.hint,
        object=subject,
    )
