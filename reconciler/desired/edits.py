"""Commits of our own: what is to be written, as a function of what the file holds at the tip.

An edit is replayed when the push loses a race, so it must look at the content it is given and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime


class EditConflict(Exception):
    """The file at the tip does not allow the edit any more. The message says why, for a person."""


Edit = Callable[[bytes | None], bytes | None]
"""Content at the tip (None: no such file) → new content (None: delete). The same content means: nothing to do."""


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """One commit, that changes one file, or several together."""

    id: str
    """Idempotency key; becomes the trailer ``CloudLunacy-Request``."""
    path: str
    edit: Edit
    subject: str
    author_name: str
    author_email: str
    time: datetime
    body: str = ""
    trailers: Mapping[str, str] = field(default_factory=dict)
    further: Mapping[str, Edit] = field(default_factory=dict)
    """Edits of other files in the same commit, by path: all are made, or none."""
    by_person: bool = False
    """A person may write more files than a program."""

    @property
    def edits(self) -> Mapping[str, Edit]:
        """Every edit, by path."""
        return {self.path: self.edit, **self.further}


@dataclass(frozen=True, slots=True)
class Committed:
    """The edit is on the remote branch in ``revision``."""

    revision: str


@dataclass(frozen=True, slots=True)
class AlreadyThere:
    """The tip ``revision`` holds the content already; nothing was written."""

    revision: str


@dataclass(frozen=True, slots=True)
class Conflicted:
    """The edit refused; nothing was written for this request."""

    message: str


Outcome = Committed | AlreadyThere | Conflicted
