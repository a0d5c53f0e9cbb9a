"""Commits of our own, decided and written down for ``git fast-import``. Pure.

``decide`` runs the edits in order, each on what the one before left; ``stream`` says the same in git-fast-import(1)'s
language. A commit depends on its parent and its request alone (the committer's time is the request's), so building it
again gives the same id.

A commit changes the files that its request names and no others. What a request says can add no command to the stream:
content and message are counted, names and times lose their line ends and brackets, and a path is plain or refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from reconciler.desired.edits import CommitRequest, Conflicted, EditConflict

REQUEST_TRAILER: Final = "CloudLunacy-Request"
_TRAILER_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_PLAIN_PATH: Final = re.compile(r"(?!.*(?:^|/)(?:\.{1,2}|\.git)(?:/|$))[A-Za-z0-9._-][A-Za-z0-9._/ @+-]*")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who commits: not the author, who is the request's."""

    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Written:
    """One commit to be: path → content, None deletes the file. What stays as it is, is not in it."""

    request: CommitRequest
    files: Mapping[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Standing:
    """The request wants what is there already, after the first ``after`` commits of the batch."""

    after: int


Decision = Written | Standing | Conflicted
NOTHING_REFUSED: Final[Mapping[str, Conflicted]] = {}


def decide(
    requests: Sequence[CommitRequest],
    present: Mapping[str, bytes | Conflicted | None],
    refused: Mapping[str, Conflicted] = NOTHING_REFUSED,
) -> list[Decision]:
    """Run the edits one after the other, each on what the former left.

    Args:
        requests: in the order in which they shall be committed.
        present: what each path holds at the tip (None: nothing), or why it must not be touched.
        refused: by request id, those that may not be made at all.
    """
    now = dict(present)
    decisions: list[Decision] = []
    written = 0
    for request in requests:
        decision = refused.get(request.id) or _decide(request, now, written)
        if isinstance(decision, Written):
            now.update(decision.files)
            written += 1
        decisions.append(decision)
    return decisions


def _decide(request: CommitRequest, now: Mapping[str, bytes | Conflicted | None], written: int) -> Decision:
    files: dict[str, bytes | None] = {}
    for path, edit in request.edits.items():
        before = now[path]
        if isinstance(before, Conflicted):
            return before
        try:
            after = edit(before)
        except EditConflict as conflict:
            return Conflicted(str(conflict))
        if after != before:
            files[path] = after
    return Written(request, files) if files else Standing(written)


def is_plain_path(path: str) -> bool:
    """Say whether a path may stand in the stream as it is: one line, no quote, no way out of the tree."""
    return _PLAIN_PATH.fullmatch(path) is not None


def stream(commits: Sequence[Written], *, ref: str, tip: str, committer: Identity) -> bytes:
    """Return the input for ``fast-import --force``; it prints the id of each commit on a line of its own.

    Args:
        commits: at least one.
        ref: full name of a private ref that shall point at the last commit.
        tip: id of the commit that the first one is built on; all else of its tree stays as it is.
        committer: for every commit.

    Raises:
        ValueError: a path is not plain.
    """
    parts: list[bytes] = []
    for mark, commit in enumerate(commits, start=1):
        request = commit.request
        when = _timestamp(request.time)
        author = _person(Identity(request.author_name, request.author_email))
        parent = tip if mark == 1 else f":{mark - 1}"
        lines = (f"commit {ref}", f"mark :{mark}", f"author {author} {when}", f"committer {_person(committer)} {when}")
        parts.append(("\n".join(lines) + "\n").encode())
        parts.append(_data(message(request).encode("utf-8", "replace")))
        parts.append(f"from {parent}\n".encode())
        parts.extend(_file_change(path, content) for path, content in commit.files.items())
        parts.append(f"get-mark :{mark}\n".encode())
    parts.append(b"done\n")
    return b"".join(parts)


def message(request: CommitRequest) -> str:
    """Return subject, body and trailers; no value can end its line and start another trailer."""
    trailers = {REQUEST_TRAILER: request.id} | dict(request.trailers)
    lines = [f"{key}: {_line(value)}" for key, value in trailers.items() if _TRAILER_KEY.fullmatch(key)]
    body = "\n".join(_line(line) for line in request.body.splitlines()).strip()
    paragraphs = [_line(request.subject) or "Change", body, "\n".join(lines)]
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def _file_change(name: str, content: bytes | None) -> bytes:
    if not is_plain_path(name):
        raise ValueError(f"{name[:80]!r} is not a plain path")
    path = name.encode()
    if content is None:
        return b"D " + path + b"\n"
    return b"M 100644 inline " + path + b"\n" + _data(content)


def _data(content: bytes) -> bytes:
    return b"data %d\n%b\n" % (len(content), content)


def _person(identity: Identity) -> str:
    name, email = (_line(re.sub("[<>]", "", text)) for text in (identity.name, identity.email))
    return f"{name} <{email}>"


def _line(text: str) -> str:
    printable = _CONTROLS.sub(" ", text).strip()
    return printable.encode("utf-8", "replace").decode()


def _timestamp(time: datetime) -> str:
    return f"{max(0, int(time.astimezone(UTC).timestamp()))} +0000"
