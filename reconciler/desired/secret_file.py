"""Edits of ``secrets/<team>/<name>.yaml``: values are put in, replaced and taken out as text. Pure.

Only the lines of the values that change are touched, so that comments, order and form of all others stay and a diff
shows what happened. Values come here sealed; nothing here can open one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from reconciler.desired.edits import EditConflict
from reconciler.desired.yaml_editing import MAX_FILE, load, plain, scalar

_HEADER: Final = re.compile(r"[|>][-+0-9]*([ \t]+#[^\r]*)?")
_HAND: Final = "Write spec.sealed with one key a line, or edit it by hand."


def new_file(name: str, sealed: Mapping[str, str]) -> bytes:
    """Return the text of a new secret; ``sealed``: key → armour."""
    lines = [
        "# yaml-language-server: $schema=../../.cloudlunacy/schemas/secret.json",
        "apiVersion: cloudlunacy/v1",
        "kind: Secret",
        "metadata:",
        f"  name: {scalar(name)}",
        "spec:",
        "  sealed:",
        *(line for key, armour in sealed.items() for line in _entry(f"    {scalar(key)}:", 4, armour)),
    ]
    return ("\n".join(lines) + "\n").encode()


def with_values(path: str, content: bytes, changes: Mapping[str, str | None]) -> bytes:
    """Return the file with new values. ``changes``: key → armour, or None to take the key out.

    Raises:
        EditConflict: when the file is no secret, would hold no value any more, or is written in a form that this edit
            does not know. The message holds no value.
    """
    text, document = load(path, content)
    before = sealed_values(path, document)
    after = {**before, **{key: _normal(armour) for key, armour in changes.items() if armour is not None}}
    after = {key: armour for key, armour in after.items() if changes.get(key, "") is not None}
    if not after:
        raise EditConflict(f"{path} would hold no value any more; delete the file instead.")
    wanted = plain(document)
    assert isinstance(wanted, dict)
    wanted["spec"]["sealed"] = after
    edited = _splice(path, text, changes).encode()
    if len(edited) > MAX_FILE:
        raise EditConflict(f"{path} would be larger than {MAX_FILE} bytes; put the value into a secret of its own.")
    if not _reads_as(edited, wanted):
        raise EditConflict(f"{path} cannot be edited without changing its form. {_HAND}")
    return edited


def _reads_as(edited: bytes, wanted: object) -> bool:
    try:
        return plain(load("", edited)[1]) == wanted
    except EditConflict:
        return False


def sealed_values(path: str, document: CommentedMap) -> dict[str, object]:
    """Return what stands under ``spec.sealed``.

    Raises:
        EditConflict: when there is no such mapping.
    """
    spec = document.get("spec")
    sealed = spec.get("sealed") if isinstance(spec, CommentedMap) else None
    if document.get("kind") != "Secret" or not isinstance(sealed, CommentedMap):
        raise EditConflict(f"{path} is no secret with values under spec.sealed; mend or delete it first.")
    return {str(key): plain(value) for key, value in sealed.items()}


class _Block(NamedTuple):
    """The lines ``first`` (included) to ``end`` (excluded) of one key and its value."""

    first: int
    end: int
    column: int
    """Spaces before the key."""
    label: str
    """The key as it is written, with its colon."""
    remark: str
    """The comment on the line of the key, with the space before it."""


def _splice(path: str, text: str, changes: Mapping[str, str | None]) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.removesuffix("\n").removesuffix("\r").split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    blocks = _blocks(path, text, lines)
    last = max(blocks.values(), key=lambda block: block.end)
    new = {f"{' ' * last.column}{scalar(key)}:": armour for key, armour in changes.items() if key not in blocks}
    lines[last.end : last.end] = [
        line for label, armour in new.items() if armour is not None for line in _entry(label, last.column, armour)
    ]
    changed = [(blocks[key], armour) for key, armour in changes.items() if key in blocks]
    for block, armour in sorted(changed, key=lambda pair: pair[0].first, reverse=True):  # what is above stays in place
        label = f"{' ' * block.column}{block.label}"
        lines[block.first : block.end] = [] if armour is None else _entry(label, block.column, armour, block.remark)
    return newline.join([*lines, ""])


def _entry(label: str, column: int, armour: str, remark: str = "") -> list[str]:
    indent = " " * (column + 2)
    return [f"{label} |{remark}", *(indent + line for line in armour.strip().splitlines())]


def _normal(armour: str) -> str:
    """Return the armour as a literal block scalar holds it."""
    return "\n".join([*armour.strip().splitlines(), ""])


def _blocks(path: str, text: str, lines: list[str]) -> dict[str, _Block]:
    root = YAML(typ="rt", pure=True).compose(text)
    sealed = _child(_child(root, "spec"), "sealed")
    if not isinstance(sealed, MappingNode) or sealed.flow_style or not sealed.value:
        raise EditConflict(f"{path} cannot be edited without changing its form. {_HAND}")
    return {str(key.value): _block(key, value, lines) for key, value in sealed.value}


def _child(node: Node | None, name: str) -> Node | None:
    pairs = node.value if isinstance(node, MappingNode) else ()
    return next((value for key, value in pairs if isinstance(key, ScalarNode) and key.value == name), None)


def _block(key: Node, value: Node, lines: list[str]) -> _Block:
    first, column = key.start_mark.line, key.start_mark.column
    label = f"{lines[first][column : key.end_mark.column]}:"
    if isinstance(value, ScalarNode) and value.style in ("|", ">"):
        header = _HEADER.match(lines[value.start_mark.line], value.start_mark.column)
        return _Block(first, _end_of_literal(lines, first + 1, column), column, label, (header and header[1]) or "")
    last = value.end_mark.line if value.value else first
    rest = "".join(lines[last : last + 1])[value.end_mark.column if value.value else key.end_mark.column + 1 :]
    return _Block(first, last + 1, column, label, rest if rest.lstrip().startswith("#") else "")


def _end_of_literal(lines: list[str], start: int, column: int) -> int:
    """Return the line after the last one of a block scalar whose key stands in ``column``."""
    indent = end = 0
    for number, line in enumerate(lines[start:], start):
        depth = len(line) - len(line.lstrip(" "))
        if not line.strip():
            continue
        if depth <= column or depth < indent:
            break
        indent = indent or depth
        end = number + 1
    return max(end, start)
