"""One thing that is wrong with a file, said so that a person can mend it."""

from __future__ import annotations

from typing import Literal

from schemas.base import Model
from schemas.text import visible

Severity = Literal["error", "warning"]


class Problem(Model):
    """What, where, why and what to do. Its JSON is the item of ``validate --format json``."""

    file: str
    """Path in the state repo, with ``/``."""
    line: int = 1
    """1-based."""
    column: int = 1
    """1-based."""
    code: str
    """Stable word in kebab-case; documented in docs/problems.md."""
    severity: Severity = "error"
    """An error keeps the object out of service; a warning does not."""
    message: str
    """What is wrong and why."""
    hint: str = ""
    """What to do."""
    object: str = ""
    """``Kind/team/name`` of the object, empty where the file holds none."""

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}:{self.column} {self.code}: {self.message}"
        return visible(f"{text} {self.hint}" if self.hint else text)
