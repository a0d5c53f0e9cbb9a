"""From an accepted change to its commit: what the outbox keeps, and what git and the timeline are told. Pure.

A commit of a change writes what was checked, and only onto what it was checked against: a file that somebody has
changed in between is left as it is, and the change as a whole is not made.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from reconciler.agents.group_commit import CONFLICTED, PROPOSED, Job, Settled
from reconciler.desired.edits import CommitRequest, Edit, EditConflict
from reconciler.store.protocols import Event, OutboxEntry
from schemas.objects import key_of_path

ACTOR_TRAILER: Final = "CloudLunacy-Actor"
BRANCH: Final = "change/"
KIND: Final = "change"
MAX_SUBJECT: Final = 120
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]+")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A change that was checked, and is to be committed."""

    id: str
    files: Mapping[str, bytes | None]
    """Path → what it shall hold, None: nothing."""
    seen: Mapping[str, bytes | None]
    """Path → what it held when it was checked."""
    subject: str
    body: str
    actor: str
    author: tuple[str, str]
    proposal: bool
    at: float

    @property
    def branch(self) -> str:
        """The branch of a proposal."""
        return branch_of(self.subject, self.id) if self.proposal else ""

    def entry(self) -> OutboxEntry:
        """Return what the outbox keeps."""
        files = {
            path: {"text": None if content is None else content.decode(), "seen": digest(self.seen.get(path))}
            for path, content in self.files.items()
        }
        payload = {
            "files": files,
            "subject": self.subject,
            "body": self.body,
            "actor": self.actor,
            "author": list(self.author),
            "branch": self.branch,
        }
        return OutboxEntry(self.id, KIND, payload, self.at)


def digest(content: bytes | None) -> str:
    """Return what a content is compared by; empty for no file."""
    return "" if content is None else hashlib.sha256(content).hexdigest()


def branch_of(subject: str, change_id: str) -> str:
    """Return the name of the branch of a proposal: readable, and nobody else's."""
    slug = re.sub(r"[^a-z0-9]+", "-", subject.lower())[:40].strip("-") or "objects"
    return f"{BRANCH}{slug}-{hashlib.sha256(change_id.encode()).hexdigest()[:8]}"


def message_of(text: str, otherwise: str) -> tuple[str, str]:
    """Return subject and body of a commit: the first line, in one line, and the rest."""
    first, _, rest = text.strip().partition("\n")
    subject = " ".join(_CONTROLS.sub(" ", first).split()) or otherwise
    body = "\n".join(_CONTROLS.sub(" ", line).rstrip() for line in rest.strip().splitlines())
    if len(subject) > MAX_SUBJECT:
        body = f"{subject}\n\n{body}".rstrip()
        subject = f"{subject[: MAX_SUBJECT - 1].rstrip()}…"
    return subject, body


def compose_change(entry: OutboxEntry, *, branch: str) -> Job:
    """Turn an accepted change into its commit on ``branch``, or on a branch of its own where it is a proposal.

    Raises:
        KeyError, TypeError, ValueError: when the payload is not one of ours.
    """
    said = entry.payload
    edits = {str(path): _edit(str(path), one["text"], str(one["seen"])) for path, one in said["files"].items()}
    (path, edit), *further = edits.items()
    name, mail = said["author"]
    request = CommitRequest(
        id=entry.id,
        path=path,
        edit=edit,
        further=dict(further),
        by_person=True,
        subject=str(said["subject"]),
        body=str(said["body"]),
        author_name=str(name),
        author_email=str(mail),
        time=datetime.fromtimestamp(entry.accepted_at, UTC),
        trailers={ACTOR_TRAILER: str(said["actor"])},
    )
    if said["branch"]:
        return Job(request, str(said["branch"]), base=branch, proposal=True)
    return Job(request, branch)


def _edit(path: str, text: Any, seen: str) -> Edit:  # noqa: ANN401 - JSON
    wanted = None if text is None else str(text).encode()

    def edit(content: bytes | None) -> bytes | None:
        if content != wanted and digest(content) != seen:
            raise EditConflict(f"{path} was changed on the branch in the meantime, so nothing of this was committed.")
        return wanted

    return edit


def event_of(entry: OutboxEntry, settled: Settled, now: float, *, url: str = "") -> Event:
    """Return what the timeline says of a settled change."""
    said = entry.payload
    conflicted, proposed = settled.outcome.startswith(CONFLICTED), settled.outcome == PROPOSED
    if conflicted:
        text = settled.outcome.removeprefix(CONFLICTED)
    elif proposed:
        text = f"{said['subject']}: waits to be merged on branch {said['branch']}{f', {url}' if url else ''}."
    else:
        text = f"{said['subject']}."
    return Event(
        time=now,
        type="ChangeConflicted" if conflicted else "ChangeProposed" if proposed else "ChangeCommitted",
        severity="warning" if conflicted else "info",
        subject=subject_of_event(list(said["files"])),
        message=text,
        revision=settled.revision or "",
        actor=str(said["actor"]),
    )


def subject_of_event(paths: list[str]) -> str:
    """Return what an event is about: the object, or how many there are."""
    key = key_of_path(paths[0])
    return f"{len(paths)} objects" if len(paths) > 1 or key is None else str(key)
