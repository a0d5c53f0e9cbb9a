"""The values of a secret in clear, as text that a person edits, and back. Pure.

One ``key: value`` a line, or a block for a value of several lines. Whatever is typed is text: ``0123``, ``yes`` and
``null`` are those characters. Errors name the place and quote nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Final

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from reconciler.desired.edits import EditConflict
from reconciler.desired.yaml_editing import MAX_FILE
from schemas.secret import SecretKey

_KEY: Final = TypeAdapter[str](SecretKey)
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]*")
_ESCAPED: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_HEAD: Final = """\
# The values of {path} in clear. Only those that you change are sealed again; a line that you delete is taken out.
# Everything is text, with or without quotes. To change nothing, leave the editor without saving.
"""


def to_text(path: str, values: Mapping[str, str]) -> str:
    """Return the text for the editor: what ``from_text`` reads back as the same values."""
    return _HEAD.format(path=path) + "".join(f"{_quoted(key)}: {_written(value)}\n" for key, value in values.items())


def from_text(text: str) -> dict[str, str]:
    """Return the values that a person wrote.

    Raises:
        EditConflict: when the text does not have its form, or a key is no key. The message holds no value.
    """
    if len(text) > MAX_FILE:
        raise EditConflict(f"The text is longer than {MAX_FILE} characters.")
    try:
        found: object = YAML(typ="base", pure=True).load(text)
    except DuplicateKeyError as error:
        raise EditConflict(f"A key stands twice{_place(error)}.") from None
    except (YAMLError, ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
        raise EditConflict(f"The text is not written as KEY: VALUE{_place(error)}.") from None
    if not found:
        raise EditConflict("The text holds no value; to remove the secret, delete its file.")
    if not isinstance(found, dict):
        raise EditConflict("The text is not written as KEY: VALUE.")
    for number, (key, value) in enumerate(found.items(), 1):
        _check(number, key, value)
    return found


def _check(number: int, key: object, value: object) -> None:
    try:
        _KEY.validate_python(key, strict=True)
    except ValidationError:
        text = f"Key {number} is no key: use letters, digits and . _ -, beginning with a letter or digit, at most 63."
        raise EditConflict(text) from None
    if not isinstance(value, str):
        raise EditConflict(f'The value of "{key}" is no text; quote it, or write it as a block with |.')


def _place(error: Exception) -> str:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    return "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"


def _written(value: str) -> str:
    if "\n" in value and (block := _block(value)) is not None:
        return block
    return _quoted(value)


def _block(value: str) -> str | None:
    """Write several lines as they are; None where YAML would not give them back unchanged."""
    lines = value.split("\n")
    chomping = "-" if lines[-1] else "" if len(lines) > 1 and lines[-2] else "+"
    body = lines if lines[-1] else lines[:-1]
    block = f"|{chomping}\n" + "\n".join(f"  {line}" if line else "" for line in body)
    if not all(line.isprintable() for line in lines):
        return None
    try:
        read: object = YAML(typ="base", pure=True).load(f"a: {block}\n")
    except YAMLError:
        return None
    return block if read == {"a": value} else None


def _quoted(value: str) -> str:
    """Write one line so that a person sees what it is: in single quotes, where only ' is doubled, if that can be."""
    if value.isprintable():
        return value if _WORD.fullmatch(value) else "'{}'".format(value.replace("'", "''"))
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", encode_basestring(value))
