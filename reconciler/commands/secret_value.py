"""Where the value of a secret comes from: a file, standard input, or a person at a terminal. Never an argument."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Final

from reconciler.commands.output import tell
from reconciler.desired.yaml_reader import MAX_BYTES
from reconciler.errors import Broken
from reconciler.pki.private_files import told

STANDARD_INPUT: Final = Path("-")


def read_value(source: Path, *, keep_newline: bool) -> str:
    """Return the value. Of a file or a pipe the line end at the end is left out, unless it shall be kept.

    Raises:
        Broken: when it is empty, too long, no text, or was typed in two ways. No message holds any of it.
    """
    if source == STANDARD_INPUT and sys.stdin.isatty():
        return _ask()
    value = _text(_read(source))
    bare = value.removesuffix("\n").removesuffix("\r") if value.endswith("\n") else value
    if bare != value and not keep_newline:
        tell("The line end after the value is left out; --keep-newline keeps it.")
        value = bare
    if not value:
        raise Broken("The value is empty; nothing was sealed.")
    return value


def _ask() -> str:
    try:
        value = getpass.getpass("Value (not shown): ")
        again = getpass.getpass("The same again: ")
    except EOFError:
        value = again = ""
    if value != again:
        raise Broken("The two values differ; nothing was sealed.")
    if not value:
        raise Broken("The value is empty; nothing was sealed.")
    return value


def _read(source: Path) -> bytes:
    if source == STANDARD_INPUT:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    try:
        with source.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Broken(f"{told(source, error)} cannot be read: {error.strerror}.") from None


def _text(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise Broken(f"The value has more than {MAX_BYTES:,} bytes, which is more than a secret's file may have.")
    try:
        return content.decode()
    except UnicodeDecodeError:
        hint = "Encode it first, such as with base64."
        raise Broken("The value is not UTF-8 text; nothing was sealed.", hint=hint) from None
