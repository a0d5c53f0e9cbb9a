"""Where a field stands."""

from __future__ import annotations

from typing import Final

import pytest

from reconciler.desired.finding import FieldPath, Finding
from reconciler.desired.locate import MAX_TOKENS, START, duplicate_key, positions

CONTENT: Final = b"""\
# first
kind: Route
spec:
  backends:
    - {agent: vps-1, port: 8081}
    - agent: "vps-2"
      port: 1
"""


def place(field: FieldPath, content: bytes = CONTENT, *, at_key: bool = False) -> tuple[int, int]:
    return positions(content, [Finding("f", "c", "m", field=field, at_key=at_key)])[0]


@pytest.mark.parametrize(
    ("field", "at_key", "expected"),
    [
        (("kind",), False, (2, 7)),
        (("kind",), True, (2, 1)),
        (("spec", "backends", 0, "agent"), False, (5, 15)),
        (("spec", "backends", 1, "agent"), False, (6, 14)),
        (("spec", "backends", 1, "agent"), True, (6, 7)),
        (("spec", "backends", 1), False, (6, 7)),
        (("spec", "backends", 1, "weight"), False, (6, 7)),
        (("spec", "nothing", "here"), False, (3, 1)),
        (("nothing",), False, (2, 1)),
        ((), False, START),
    ],
)
def test_a_field_is_found_at_its_value_or_key(field: FieldPath, at_key: bool, expected: tuple[int, int]) -> None:
    """Lists and nested mappings are followed; what is missing points at the nearest parent that is there."""
    assert place(field, at_key=at_key) == expected


def test_a_known_position_stays() -> None:
    """Nothing is parsed for findings that know their place."""
    assert positions(b"\xff[", [Finding("f", "c", "m", position=(3, 4))]) == [(3, 4)]


@pytest.mark.parametrize("content", [b"", b"a: [", b"\xff", b"- " * MAX_TOKENS + b"- a", b"[" * 60_000])
def test_what_cannot_be_parsed_points_at_the_start(content: bytes) -> None:
    """Broken, empty and hostile files cost no more than a look."""
    assert place(("a", "b"), content) == START
    assert duplicate_key(content) is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: 1\nb: 2\n", None),
        (b"a: 1\na: 2\n", (2, 1)),
        (b"a:\n  - b: 1\n    'b': 2\n", (3, 5)),
        (b'{a: 1, "\\x61": 2}', (1, 8)),
        (b"a: {x: 1}\nb: {x: 1}\n", None),
    ],
)
def test_the_first_key_that_stands_twice_is_found(content: bytes, expected: tuple[int, int] | None) -> None:
    """However the key is written; equal keys of different mappings are no duplicates."""
    assert duplicate_key(content) == expected
