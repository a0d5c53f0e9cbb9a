"""git's machine formats, read. Pure: bytes in, values out.

Every format here ends its records with NUL, so a path may hold anything but NUL; it is decoded with surrogateescape,
because git's paths are bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from reconciler.desired.snapshot import Change, File

_HEX_ID: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_DELETED: Final = "000000"


class Unreadable(Exception):
    """git printed something that its documentation does not allow: the mirror or the program is damaged."""


class TooLarge(NamedTuple):
    """Stands where content would, for a blob over the limit. ``size`` in bytes."""

    size: int


def is_id(text: str) -> bool:
    """Say whether ``text`` is a full object id, SHA-1 or SHA-256, in lower case hex."""
    return _HEX_ID.fullmatch(text) is not None


def parse_tree(output: bytes) -> Mapping[str, File]:
    """Read ``ls-tree -r -z``: ``mode SP type SP id TAB path NUL`` each.

    Raises:
        Unreadable: a record has another form.
    """
    files = {}
    try:
        for record in output.decode("utf-8", "surrogateescape").split("\0")[:-1]:
            entry, path = record.split("\t", 1)
            files[path] = File(entry[:6], entry[entry.rindex(" ") + 1 :])
    except ValueError:
        raise Unreadable("ls-tree printed a record of an unknown form") from None
    return files


def parse_changes(output: bytes) -> tuple[Change, ...]:
    """Read ``diff-tree -r -z --no-renames``: ``:mode SP mode SP id SP id SP letter NUL path NUL`` each.

    Raises:
        Unreadable: a record has another form.
    """
    fields = output.decode("utf-8", "surrogateescape").split("\0")[:-1]
    if len(fields) % 2:
        raise Unreadable("diff-tree printed a change without a path")
    changes = []
    try:
        for entry, path in zip(fields[::2], fields[1::2], strict=True):
            _, mode, _, blob, _ = entry.removeprefix(":").split(" ")
            changes.append(Change(path, None if mode == _DELETED else File(mode, blob)))
    except ValueError:
        raise Unreadable("diff-tree printed a record of an unknown form") from None
    return tuple(sorted(changes, key=lambda change: change.path))


class BatchReader:
    """Reads ``cat-file --batch`` as it comes: ``id SP type SP size LF content LF`` each, or ``id SP missing LF``.

    ``feed`` answers False at the first blob over ``max_bytes``: the caller ends git before the content is sent.
    """

    def __init__(self, max_bytes: int) -> None:
        self.contents: dict[str, bytes] = {}
        self.missing: list[str] = []
        self.saw_too_large = False
        self._max_bytes = max_bytes
        self._pending = b""

    def feed(self, chunk: bytes) -> bool:
        """Take a piece of output; False when a blob over the limit comes next.

        Raises:
            Unreadable: a header has another form.
        """
        data = self._pending + chunk if self._pending else chunk
        position = 0
        while (line_end := data.find(b"\n", position)) >= 0:
            header = data[position:line_end].decode("ascii", "replace").split(" ")
            if len(header) == 2 and header[1] == "missing":
                self.missing.append(header[0])
                position = line_end + 1
                continue
            size = _size(header)
            if size > self._max_bytes:
                self.saw_too_large = True
                return False
            end = line_end + 1 + size
            if len(data) <= end:
                break
            self.contents[header[0]] = data[line_end + 1 : end]
            position = end + 1
        self._pending = data[position:]
        return True


def parse_sizes(output: bytes) -> Mapping[str, int | None]:
    """Read ``cat-file --batch-check``: size in bytes by id, None for a missing object.

    Raises:
        Unreadable: a line has another form.
    """
    sizes: dict[str, int | None] = {}
    for line in output.decode("ascii", "replace").splitlines():
        header = line.split(" ")
        sizes[header[0]] = None if header[1:] == ["missing"] else _size(header)
    return sizes


def _size(header: list[str]) -> int:
    if len(header) != 3 or not header[2].isdigit():
        raise Unreadable("cat-file printed a header of an unknown form")
    return int(header[2])


def parse_heads(output: bytes) -> Mapping[str, str]:
    """Read ``ls-remote``: ``id TAB ref LF`` each. What is no full id is left out: the remote may say anything."""
    heads = {}
    for line in output.decode("utf-8", "replace").split("\n"):
        revision, tab, ref = line.partition("\t")
        if tab and is_id(revision):
            heads[ref] = revision
    return heads


@dataclass(frozen=True, slots=True)
class PushAnswer:
    """The one line of ``push --porcelain`` for our ref. ``accepted`` includes: it was there already."""

    accepted: bool
    by_remote: bool
    reason: str


def parse_push(output: bytes, ref: str) -> PushAnswer | None:
    """Find the answer for ``ref``: ``flag TAB from:to TAB summary (reason)``. None when git did not get that far."""
    for line in output.decode("utf-8", "replace").splitlines():
        flag, _, rest = line.partition("\t")
        names, _, summary = rest.partition("\t")
        if names.endswith(f":{ref}") and len(flag) == 1:
            reason = summary[summary.find("(") + 1 :].rstrip(")") if "(" in summary else summary
            return PushAnswer(flag in " *=+", summary.startswith("[remote"), reason)
    return None
