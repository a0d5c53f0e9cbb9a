"""``docs/threats.md`` is true: each row is there, and each test and file that it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
ROWS: Final = {
    int(row[1]): row[0]
    for row in re.finditer(r"^\| (\d+) \|.*$", (ROOT / "docs" / "threats.md").read_text(), re.MULTILINE)
}
PROVEN: Final = set(range(1, 30))
"""Rows that need a proof; the others belong to parts that are still to come."""


def test_every_row_is_there() -> None:
    """No threat that can be tried today is left out."""
    assert set(ROWS) == PROVEN


@pytest.mark.parametrize("number", sorted(ROWS))
def test_every_proof_exists(number: int) -> None:
    """A row names files that exist and tests that exist, at least one of them on the real parts."""
    proofs = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", ROWS[number])
    assert any(path.startswith("tests/integration/") for path, _ in proofs)
    assert [(path, name) for path, name in proofs if name not in names_in(path)] == []
    files = re.findall(r"`((?:reconciler|schemas|agent)/[\w/]+\.py)`", ROWS[number])
    assert files
    assert [path for path in files if not (ROOT / path).is_file()] == []


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))
