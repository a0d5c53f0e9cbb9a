"""Bytes of a file → plain values, with limits before and while parsing.

YAML 1.2, core schema, through yaml-rs (Rust). What that parser does not bound is bounded before it sees the text: the
size, and the nesting of compact collections (``- - - -``, ``? ? ?``), which it follows by recursion until the stack
ends. Flow collections are bounded by the parser itself (255), block collections by the indentation allowed here.

Refused, because an object is small and must mean what it seems to mean: aliases (a bomb in a few bytes, and the parser
reads one inside its own anchor as null), tags and directives (they change what a value is, or are silently ignored),
and characters that a reader of a pull request cannot see (control characters, bidirectional overrides).
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml_rs

MAX_BYTES: Final = 64 * 1024
MAX_INDENT: Final = 100
MAX_COMPACT: Final = 16

_MARKS_ALIKE: Final = bytes.maketrans(b"?:", b"--")
_COMPACT: Final = re.compile(rf"(?:[-?:][ \t]+){{{MAX_COMPACT},}}")
_INDENTED: Final = re.compile(rf"(?:^|\r)[ ]{{{MAX_INDENT},}}[^ #\r\n]", re.MULTILINE)
_PLAIN_BYTES: Final = bytes([*b"\t\n\r", *range(0x20, 0x7F)])
_UNSEEN: Final = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]"
)
_ALIAS: Final = re.compile(r"\*([^\s,\[\]{}]+)")
_ANCHOR: Final = re.compile(r"&([^\s,\[\]{}]+)")
_TAG: Final = re.compile(r"(?:^|[\[{,]|[-:?][ \t])[ \t]*(?:&[^\s,\[\]{}]+[ \t]+)?(![^\s,\[\]{}=]\S*)", re.MULTILINE)
_DIRECTIVE: Final = re.compile(r"^%\S*", re.MULTILINE)
_POSITION: Final = re.compile(r"line (\d+), column (\d+)")
_LFS: Final = b"version https://git-lfs"
_NO_ALIASES: Final = yaml_rs.AliasLimits(
    max_total_replayed_events=0, max_alias_expansions_per_anchor=0, max_replay_stack_depth=0
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
    """Return the one mapping that the file holds. Keys below the first level may be of any scalar type.

    Raises:
        Unreadable: with a stable code, a sentence and the place.
    """
    text = _decode(content)
    _check_shape(content, text)
    _check_features(text)
    try:
        value = yaml_rs.loads(text, parse_datetime=False, alias_limits=_NO_ALIASES)
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
    # the bytes tell in a fifth of the time whether anything is there to look for
    found = _UNSEEN.search(text) if content.translate(None, _PLAIN_BYTES) else None
    if found:
        raise Unreadable(
            "control-character",
            f"the text holds U+{ord(found[0]):04X}, which nobody can see",
            f'Remove it, or write "\\u{ord(found[0]):04x}" in double quotes.',
            _position_of(text[: found.start()]),
        )
    return text


def _check_shape(content: bytes, text: str) -> None:
    # in nearly all files two quick looks show that there is nothing to look for
    is_compact = b"-" * MAX_COMPACT in content.translate(_MARKS_ALIKE, b" \t")
    for is_suspicious, pattern in ((is_compact, _COMPACT), (" " * MAX_INDENT in text, _INDENTED)):
        found = pattern.search(text) if is_suspicious else None
        if found:
            raise Unreadable(
                "too-deep",
                "the document is nested too deeply",
                f"At most {MAX_COMPACT} collections a line and {MAX_INDENT} spaces of indentation are read.",
                _position_of(text[: found.start()]),
            )


def _check_features(text: str) -> None:
    if "&" in text and "*" in text:
        found = _alias_inside_anchor(text)
        if found:
            raise _alias(_position_of(text[: found.start()]))
    tag = _TAG.search(text) if "!" in text else None
    if tag:
        raise Unreadable(
            "unsupported-yaml",
            f'the tag "{tag[1][:40]}" is not read: tags change what a value is',
            "Remove it; to keep a value a string, quote it.",
            _position_of(text[: tag.start(1)]),
        )
    directive = _DIRECTIVE.search(text) if "%" in text else None
    if directive:
        raise Unreadable(
            "unsupported-yaml",
            f'the directive "{directive[0][:40]}" is not read; every document is YAML 1.2',
            "Remove the line.",
            _position_of(text[: directive.start()]),
        )


def _alias_inside_anchor(text: str) -> re.Match[str] | None:
    """Find an alias whose anchor stands somewhere in the text: the parser refuses all but those inside their anchor."""
    anchors = {found[1] for found in _ANCHOR.finditer(text)}
    return next((found for found in _ALIAS.finditer(text) if found[1] in anchors), None)


def _alias(position: tuple[int, int]) -> Unreadable:
    return Unreadable(
        "unsupported-yaml", "aliases (*name) are not read", "Write the value out where it is needed.", position
    )


def _explain(error: str, text: str) -> Unreadable:
    if error.startswith("duplicate mapping key"):
        key = error.partition(": ")[2].strip("'\"")
        return Unreadable("duplicate-key", f'the key "{key[:60]}" stands twice in one mapping', "Keep one of them.")
    if error.startswith("alias "):
        found = _alias_inside_anchor(text)
        return _alias(_position_of(text[: found.start()]) if found else (1, 1))
    lines = [line for line in error.splitlines() if line.strip()]
    reason = lines[-1].strip()[:200] if lines else "unknown error"
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
    lines = text.split("\n")
    return lines[number - 1] if 0 < number <= len(lines) else ""


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else "unknown error"


def _position_of(before: str) -> tuple[int, int]:
    """Line and column of what follows ``before``."""
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
