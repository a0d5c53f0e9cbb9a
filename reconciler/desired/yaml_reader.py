"""Bytes of a file → plain values, with limits before and while parsing.

YAML 1.2, core schema, through yaml-rs (Rust). What that parser does not bound is bounded before it sees the text: the
size, and the nesting of compact collections (``- - - -``, ``? ? ?``), which it follows by recursion until the stack
ends. Flow collections are bounded by the parser itself (255), block collections by the indentation allowed here.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml_rs

MAX_BYTES: Final = 64 * 1024
MAX_INDENT: Final = 100
MAX_COMPACT: Final = 16
MAX_ALIASES: Final = 32
MAX_REPLAYED: Final = 2_000

_COMPACT: Final = re.compile(rf"(?:[-?:][ \t]+){{{MAX_COMPACT},}}")
_INDENTED: Final = re.compile(rf"^[ ]{{{MAX_INDENT},}}[^ #\r\n]", re.MULTILINE)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x85\ufffe\uffff]")
_POSITION: Final = re.compile(r"line (\d+), column (\d+)")
_LFS: Final = b"version https://git-lfs"
_LIMITS: Final = yaml_rs.AliasLimits(
    max_total_replayed_events=MAX_REPLAYED, max_alias_expansions_per_anchor=MAX_ALIASES, max_replay_stack_depth=8
)


class Unreadable(Exception):
    """The bytes are not one YAML mapping within the limits. ``position`` is (line, column), 1-based."""

    def __init__(self, code: str, message: str, hint: str = "", position: tuple[int, int] = (1, 1)) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.position = position


def read_mapping(content: bytes) -> dict[str, Any]:
    """Return the one mapping that the file holds.

    Raises:
        Unreadable: with a stable code, a sentence and the place.
    """
    text = _decode(content)
    _check_shape(text)
    try:
        value = yaml_rs.loads(text, parse_datetime=False, alias_limits=_LIMITS)
    except yaml_rs.YAMLDecodeError as error:
        raise _explain(str(error), text) from None
    except (RecursionError, ValueError, TypeError) as error:
        raise Unreadable("yaml-syntax", f"the YAML cannot be read: {_first_line(str(error))}") from None
    if isinstance(value, dict):
        return value
    raise _not_a_mapping(value)


def _decode(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise Unreadable(
            "file-too-large",
            f"the file has {len(content):,} bytes, at most {MAX_BYTES:,} are read",
            "Split it: one object a file.",
        )
    if content.startswith(_LFS):
        raise Unreadable("lfs-pointer", "this is a Git LFS pointer, not a document", "Take the file out of LFS.")
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise Unreadable(
            "invalid-utf-8",
            f"byte 0x{content[error.start]:02x} is not valid UTF-8",
            "Save the file as UTF-8.",
            _position_of(content[: error.start].decode("utf-8")),
        ) from None
    found = _CONTROL.search(text)
    if found:
        raise Unreadable(
            "control-character",
            f"the text holds the control character U+{ord(found[0]):04X}",
            "Remove it.",
            _position_of(text[: found.start()]),
        )
    return text


def _check_shape(text: str) -> None:
    for pattern in (_COMPACT, _INDENTED):
        found = pattern.search(text)
        if found:
            raise Unreadable(
                "too-deep",
                "the document is nested too deeply",
                f"At most {MAX_COMPACT} collections a line and {MAX_INDENT} spaces of indentation are read.",
                _position_of(text[: found.start()]),
            )


def _explain(error: str, text: str) -> Unreadable:
    if error.startswith("duplicate mapping key"):
        key = error.partition(": ")[2].strip("'\"")
        return Unreadable("duplicate-key", f'the key "{key}" stands twice in one mapping', "Keep one of them.")
    if "alias" in error and "limit" in error:
        return Unreadable(
            "too-many-aliases",
            "the aliases of this document repeat too much",
            f"At most {MAX_ALIASES} uses of an anchor and {MAX_REPLAYED} repeated values are read; write them out.",
        )
    lines = [line for line in error.splitlines() if line.strip()]
    reason = lines[-1].strip() if lines else "unknown error"
    place = _POSITION.search(error)
    position = (int(place[1]), int(place[2])) if place else (1, 1)
    if "recursion limit" in error:
        return Unreadable("too-deep", "the document is nested too deeply", "Write it flatter.", position)
    hint = "Indent with spaces, not tabs." if "\t" in _line(text, position[0]) else ""
    return Unreadable("yaml-syntax", f"the YAML cannot be read: {reason}", hint, position)


def _not_a_mapping(value: object) -> Unreadable:
    if value is None:
        return Unreadable("empty-file", "the file holds no document", "Write one object, or delete the file.")
    if isinstance(value, list):
        return Unreadable(
            "not-one-document",
            "the file holds a list or several documents, one mapping is needed",
            "Put each object into a file of its own.",
        )
    return Unreadable("not-a-mapping", "the document is a single value, a mapping is needed", "Start with apiVersion:.")


def _line(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number - 1] if 0 < number <= len(lines) else ""


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else "unknown error"


def _position_of(before: str) -> tuple[int, int]:
    """Line and column of what follows ``before``."""
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
