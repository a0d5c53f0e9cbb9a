"""Where a field stands in a file: the slow parser, asked only when something is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from reconciler.desired.finding import FieldPath, Finding, to_problem
from schemas.objects import key_of_path
from schemas.problem import Problem

Position = tuple[int, int]
START: Final[Position] = (1, 1)
MAX_TOKENS: Final = 3_000
"""Files with more punctuation than this are not searched: the slow parser would take seconds for a hostile one."""
_TOKEN: Final = re.compile(rb"[\[\]{},:?]|- ")


def positions(content: bytes, findings: Sequence[Finding]) -> list[Position]:
    """Return line and column (1-based) for each finding of one file.

    A field that is not there points at the nearest parent that is; a file that cannot be parsed, or has too many
    values to look through, at its start.
    """
    if all(finding.position or not finding.field for finding in findings):
        return [finding.position or START for finding in findings]
    root = _compose(content)
    return [finding.position or _position(root, finding.field, at_key=finding.at_key) for finding in findings]


def located(path: str, content: bytes | None, findings: Sequence[Finding]) -> tuple[Problem, ...]:
    """Return the findings of one file as problems with their places; without its content they point at its start."""
    places = [START] * len(findings) if content is None else positions(content, findings)
    key = key_of_path(path)
    subject = str(key) if key is not None else ""
    return tuple(
        to_problem(finding, finding.position or place, subject) for finding, place in zip(findings, places, strict=True)
    )


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Sort problems by file and place."""
    return tuple(sorted(problems, key=lambda one: (one.file, one.line, one.column, one.code)))


def duplicate_key(content: bytes) -> Position | None:
    """Return the place of the first key that stands twice in a mapping."""
    root = _compose(content)
    return None if root is None else _first_duplicate(root)


def _compose(content: bytes) -> Node | None:
    if len(_TOKEN.findall(content)) > MAX_TOKENS:
        return None
    try:
        node = YAML(typ="rt", pure=True).compose(content.decode("utf-8", "replace"))
    except (YAMLError, ValueError, RecursionError):
        return None
    return node if isinstance(node, Node) else None


def _position(root: Node | None, field: FieldPath, *, at_key: bool) -> Position:
    if root is None:
        return START
    node, mark = root, root.start_mark
    for depth, step in enumerate(field):
        found = _child(node, step)
        if found is None:
            break
        key, node = found
        last = depth == len(field) - 1
        mark = key.start_mark if key is not None and (at_key or not last) else node.start_mark
    return mark.line + 1, mark.column + 1


def _child(node: Node, step: str | int) -> tuple[Node | None, Node] | None:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if isinstance(key, ScalarNode) and key.value == str(step):
                return key, value
    elif isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
        return None, node.value[step]
    return None


def _first_duplicate(root: Node) -> Position | None:
    waiting, seen_nodes = [root], set()
    found: list[Position] = []
    while waiting:
        node = waiting.pop()
        if id(node) in seen_nodes:
            continue
        seen_nodes.add(id(node))
        if isinstance(node, MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                if isinstance(key, ScalarNode):
                    if key.value in keys:
                        found.append((key.start_mark.line + 1, key.start_mark.column + 1))
                    keys.add(key.value)
                waiting.append(value)
        elif isinstance(node, SequenceNode):
            waiting.extend(node.value)
    return min(found, default=None)
