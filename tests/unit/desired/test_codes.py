"""The table of codes says all that the source can report, and the page says what the table says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from reconciler.desired.certificates import PENDING
from reconciler.desired.codes import CODES, SECTIONS, page
from reconciler.desired.conflicts import CONTESTED
from reconciler.desired.coverage import IN_USE
from reconciler.desired.policy import NAMED_KINDS

ROOT: Final = Path(__file__).parents[3]
CODE_ARGUMENT: Final = {"Finding": 1, "Unreadable": 0, "CompileProblem": 0}
"""Which argument of these calls is the code."""


def codes_in(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in CODE_ARGUMENT and len(node.args) > CODE_ARGUMENT[name]:
            code = node.args[CODE_ARGUMENT[name]]
            if isinstance(code, ast.Constant):
                yield str(code.value)


def test_every_code_in_the_source_is_in_the_table_and_the_other_way_round() -> None:
    """Nobody meets a code that is documented nowhere, and the page lists none that cannot occur."""
    files = [file for file in Path(ROOT, "reconciler").rglob("*.py") if file.parent.name != "git"]  # its own Unreadable
    used = {code for file in files for code in codes_in(file.read_text())}
    used |= {f"unknown-{what}" for what in NAMED_KINDS.values()} | {CONTESTED, IN_USE, PENDING}
    assert used == set(CODES)


def test_codes_are_kebab_case_and_listed_once() -> None:
    """A code is a stable word that can end a link."""
    listed = [one.code for _, section in SECTIONS for one in section]
    assert len(listed) == len(set(listed))
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code) for code in listed)


def test_everything_said_about_a_code_is_a_sentence() -> None:
    """Meaning, example and remedy end like sentences."""
    for one in CODES.values():
        assert one.meaning.endswith("."), one.code
        assert one.example.endswith((".", "?")), one.code
        assert one.remedy.endswith("."), one.code


def test_the_page_says_what_the_table_says() -> None:
    """After a change of the table somebody made the page anew."""
    assert Path(ROOT, "docs/problems.md").read_text() == page()
