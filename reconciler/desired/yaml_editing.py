"""What the edits of files that a person wrote have in common. Pure.

An edit changes the text, reads its own result and compares the data with what it wanted: where a file is written in a
form that the edit does not know, nothing is written and the person is told.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from reconciler.desired.edits import EditConflict

MAX_FILE: Final = 64 * 1024
"""Bytes; larger files are no objects."""
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*(?:[./][A-Za-z0-9_-]+)*|[0-9]+(?:\.[0-9]+){3}")
_ASIDE: Final = r"(?:#.*)?\r?\n"
_SEQUENCE: Final = re.compile(rf"^( *)[A-Za-z][\w-]*:[ \t]*{_ASIDE}(?:[ \t]*{_ASIDE})*( *)- ", re.MULTILINE)
_WORDS: Final = frozenset(["true", "false", "yes", "no", "on", "off", "null", "y", "n"])


def load(path: str, content: bytes) -> tuple[str, CommentedMap]:
    """Return the text of a file, and the mapping that it holds with its comments.

    Raises:
        EditConflict: when it is too large, no YAML, no mapping, or uses aliases. The message holds nothing of it.
    """
    if len(content) > MAX_FILE:
        raise EditConflict(f"{path} is larger than {MAX_FILE} bytes.")
    try:
        text = content.decode("utf-8-sig")
        if "*" in text and any(isinstance(event, AliasEvent) for event in YAML(pure=True).parse(text)):
            raise EditConflict(f"{path} uses YAML aliases and cannot be edited safely; edit it by hand.")
        yaml = YAML(typ="rt", pure=True)
        yaml.preserve_quotes = True
        document: Any = yaml.load(text)
    except (YAMLError, ValueError, RecursionError, KeyError, AttributeError, TypeError):
        raise EditConflict(f"{path} cannot be read as YAML; mend it first.") from None
    if not isinstance(document, CommentedMap):
        raise EditConflict(f"{path} holds no object; mend or delete it first.")
    return text, document


def plain(value: object) -> object:
    """Return the data without comments and styles, in an order that does not matter to ``==``."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def scalar(value: str) -> str:
    """Write a text so that it reads back as this text in YAML 1.1 and 1.2."""
    return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else json.dumps(value)


def dump(text: str, document: CommentedMap) -> bytes:
    """Write an edited document the way ``text`` was written: its line ends, and how its lists are indented."""
    out = io.StringIO()
    _writer(text).dump(document, out)
    edited = out.getvalue()
    return (edited.replace("\n", "\r\n") if "\r\n" in text else edited).encode()


def _writer(text: str) -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = MAX_FILE
    sequence = _SEQUENCE.search(text)
    offset = len(sequence[2]) - len(sequence[1]) if sequence else 0
    yaml.indent(mapping=2, sequence=offset + 2, offset=max(offset, 0))
    return yaml
