"""Who wrote a commit and what it says. Pure: the format asked of ``git log``, and its reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from reconciler.git.cleaning import cleaned, one_line
from reconciler.git.parsing import Unreadable, is_id

LOG_FORMAT: Final = "%H%n%P%n%an%n%ae%n%ct%n%s%n%(trailers:only,unfold)"
"""One record; ``log -z`` ends each with NUL. None of the first six fields can hold a line feed."""

MAX_FIELD: Final = 500


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """A commit, fit to be shown: every text is cleaned and shortened, none of it is to be believed."""

    revision: str
    parents: tuple[str, ...]
    author_name: str
    author_email: str
    subject: str
    time: datetime
    """When it was committed, in UTC, by the committer's clock."""
    trailers: Mapping[str, str]
    """The last of several with the same key."""


def parse_log(output: bytes) -> tuple[CommitInfo, ...]:
    """Read ``log -z --format=LOG_FORMAT``, newest first as git prints it.

    Raises:
        Unreadable: a record has another form.
    """
    records = output.decode("utf-8", "replace").rstrip("\0")
    return tuple(_commit(record) for record in records.split("\0")) if records else ()


def _commit(record: str) -> CommitInfo:
    fields = record.lstrip("\n").split("\n", 6)
    if len(fields) != 7 or not is_id(fields[0]):
        raise Unreadable("git log printed a record of an unknown form")
    revision, parents, name, email, seconds, subject, trailers = fields
    return CommitInfo(
        revision=revision,
        parents=tuple(parents.split()),
        author_name=_field(name),
        author_email=_field(email),
        subject=_field(subject),
        time=_time(seconds),
        trailers=_trailers(trailers),
    )


def _trailers(text: str) -> dict[str, str]:
    found = {}
    for line in text.split("\n"):
        key, colon, value = line.partition(":")
        if colon and key.strip():
            found[_field(key)] = _field(value)
    return found


def _field(text: str) -> str:
    return one_line(cleaned(text, limit=MAX_FIELD))


def _time(seconds: str) -> datetime:
    """Read seconds since the epoch; a committer may write any number."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)
