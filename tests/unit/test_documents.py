"""The pages of the project: links lead somewhere, and what they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("state-repo-example/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_inside_the_project_lead_to_a_file(page: Path) -> None:
    """A page that was moved or renamed takes its links along."""
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not page.parent.joinpath(target).exists()] == []


def test_every_make_target_in_the_pages_exists() -> None:
    """The commands that a reader copies are there."""
    targets = set(re.findall(r"^([a-z]+):", Path(ROOT, "Makefile").read_text(), flags=re.MULTILINE))
    named = {
        name for page in PAGES for name in re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(), flags=re.MULTILINE)
    }
    assert {"demo", "test"} <= named <= targets


def test_the_two_locks_agree() -> None:
    """What runs in the image is what the tests ran on."""
    pins = [
        set(re.findall(r"^([a-z0-9-]+==[^ ;]+)", Path(ROOT, name).read_text(), flags=re.MULTILINE))
        for name in ("requirements-image.lock", "requirements.lock")
    ]
    assert pins[0]
    assert pins[0] <= pins[1]
