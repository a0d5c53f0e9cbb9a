"""The files of one revision, and what changed between two of them. Pure values; ``reconciler.git`` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, NamedTuple

REGULAR_FILE: Final = "100644"


class File(NamedTuple):
    """One entry of a tree: git's mode (six octal digits) and blob id (hex)."""

    mode: str
    blob: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All files of a revision, by path as git writes it (``/``, relative, UTF-8 with surrogateescape)."""

    revision: str
    files: Mapping[str, File]


class Change(NamedTuple):
    """A path whose entry differs between two revisions; ``file`` is None where it is gone."""

    path: str
    file: File | None


def changes_between(old: Mapping[str, File], new: Mapping[str, File]) -> tuple[Change, ...]:
    """List what turns ``old`` into ``new``, by path."""
    gone = [Change(path, None) for path in old.keys() - new.keys()]
    other = [Change(path, file) for path, file in new.items() if old.get(path) != file]
    return tuple(sorted(gone + other, key=attrgetter("path")))
