"""Taking back what a revision did, and nothing that came after it."""

from __future__ import annotations

import pytest

from reconciler.changes.reverting import Unclear, taken_back

OLD, NEW = b"a\nb\nc\nd\n", b"a\nB\nc\nd\n"


@pytest.mark.parametrize(
    ("before", "after", "now", "result"),
    [
        (OLD, NEW, NEW, OLD),
        (OLD, NEW, OLD, OLD),
        (None, NEW, NEW, None),
        (OLD, None, None, OLD),
        (None, NEW, None, None),
        (OLD, NEW, b"a\nB\nc\nD\n", b"a\nb\nc\nD\n"),
    ],
)
def test_taken_back(before: bytes | None, after: bytes | None, now: bytes | None, result: bytes | None) -> None:
    """A file becomes what it was; what was changed in another place stays."""
    assert taken_back(before, after, now) == result


@pytest.mark.parametrize(
    ("before", "after", "now"), [(OLD, NEW, b"a\nX\nc\nd\n"), (None, NEW, OLD), (OLD, NEW, None), (OLD, NEW, b"\xff")]
)
def test_unclear(before: bytes | None, after: bytes | None, now: bytes | None) -> None:
    """What was changed since in the same place is nobody's to decide but a person's."""
    with pytest.raises(Unclear):
        taken_back(before, after, now)
