"""What became of the files of a revision."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.desired.finding import Finding
from reconciler.desired.parse import Parsed


@dataclass(frozen=True, slots=True)
class Gone:
    """A file of the former revision that is no more."""

    path: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """A file that cannot be an object, whatever it holds."""

    path: str
    blob: str
    finding: Finding


FileNews = Parsed | Gone | Unusable
