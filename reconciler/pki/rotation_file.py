"""What is being rotated, on disk: ``<data>/keys/rotation.json``, replaced in one step before each phase is acted on.

It also says since when each key signs, from which its age follows, and what a rotation waits for, for people who look.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from reconciler.errors import Broken
from reconciler.pki.private_files import read_private, write_private
from reconciler.pki.rotation import SUBJECTS, Rotation, Stay, Subject, from_json, seen_at, time_of, to_json

FILE_NAME: Final = "rotation.json"
MOST_NAMED: Final = 20


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a rotation waits for, as a person reads it; ``who`` are the first of ``count``."""

    why: str
    until: dt.datetime | None = None
    who: tuple[str, ...] = ()
    count: int = 0

    @classmethod
    def of(cls, stay: Stay) -> Waiting:
        """Shorten it."""
        return cls(stay.why, stay.until, stay.who[:MOST_NAMED], len(stay.who))


@dataclass(frozen=True, slots=True)
class Kept:
    """What the file says."""

    under_way: Mapping[Subject, Rotation] = field(default_factory=dict)
    signing_since: Mapping[Subject, dt.datetime] = field(default_factory=dict)
    waiting: Mapping[Subject, Waiting] = field(default_factory=dict)
    left_behind: frozenset[str] = frozenset()
    """Agents that did not take a next key before it took over, and have not said since that they believe it."""

    def seen_at(self, now: dt.datetime) -> Kept:
        """Take what was noted in the future for noted now (:func:`reconciler.pki.rotation.seen_at`)."""
        under_way = {subject: seen_at(one, now) for subject, one in self.under_way.items()}
        signing_since = {subject: min(at, now) for subject, at in self.signing_since.items()}
        return replace(self, under_way=under_way, signing_since=signing_since)


def load(keys: Path) -> Kept:
    """Read the file; nothing is under way where there is none.

    Raises:
        Broken: when it is damaged or open to others: a rotation that is forgotten half-way would be begun anew.
    """
    path = keys / FILE_NAME
    try:
        if not path.exists():
            return Kept()
        said = json.loads(read_private(path))
        under_way = [from_json(one) for one in said["rotations"]]
        return Kept(
            {one.subject: one for one in under_way},
            {
                subject: time_of(said["signingSince"][subject])
                for subject in SUBJECTS
                if subject in said["signingSince"]
            },
            {one["subject"]: _waiting(one["waiting"]) for one in said["rotations"] if one.get("waiting")},
            frozenset(map(str, said.get("leftBehind", []))),
        )
    except OSError as error:
        raise Broken(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        hint = "Restore it from a backup; without a rotation under way it may be removed."
        raise Broken(f"{path} is damaged.", hint=hint) from None


def save(keys: Path, kept: Kept) -> None:
    """Replace the file, durably.

    Raises:
        Broken: when it cannot be written.
    """
    said = {
        "version": 1,
        "rotations": [
            {**to_json(one), "waiting": _said(kept.waiting.get(subject))} for subject, one in kept.under_way.items()
        ],
        "signingSince": {subject: since.isoformat() for subject, since in kept.signing_since.items()},
        "leftBehind": sorted(kept.left_behind),
    }
    try:
        write_private(keys / FILE_NAME, json.dumps(said, indent=2).encode())
    except OSError as error:
        raise Broken(f"{keys / FILE_NAME} cannot be written: {error.strerror}.") from None


def _said(waiting: Waiting | None) -> Mapping[str, Any] | None:
    if waiting is None:
        return None
    until = None if waiting.until is None else waiting.until.isoformat()
    return {"why": waiting.why, "until": until, "who": list(waiting.who), "count": waiting.count}


def _waiting(said: Mapping[str, Any]) -> Waiting:
    until = None if said["until"] is None else time_of(said["until"])
    return Waiting(str(said["why"]), until, tuple(map(str, said["who"])), int(said["count"]))
