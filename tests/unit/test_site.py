"""The site of docs/: built without a warning, it needs no other host, and every link and anchor leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from markdown.extensions.toc import slugify  # type: ignore[import-untyped]

from tests.support.reference import FOLDER, pages, stale

ROOT: Final = Path(__file__).parents[2]
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")


class Addresses(HTMLParser):
    """What a page makes a browser fetch by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in {"script", "img", "iframe", "source"}:
            self.found.append(given.get("src") or "")
        if tag == "link" and given.get("rel") not in {"canonical", "next", "prev"}:
            self.found.append(given.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_is_built_and_fetches_nothing_from_elsewhere(site: Path) -> None:
    """Neither fonts, nor scripts, nor pictures come from another host, and each page of docs/ is a page of it."""
    found = sorted(site.rglob("*.html"))
    assert len(found) >= len(list((ROOT / "docs").rglob("*.md")))
    elsewhere = {
        (path.name, address)
        for path in found
        for address in Addresses(path.read_text(encoding="utf-8")).found
        if urlsplit(address).netloc
    }
    assert elsewhere == set()


def test_each_alert_leads_to_a_section_of_the_site(site: Path) -> None:
    """The address in an alert has the page and the anchor that the site has."""
    rules = (ROOT / "docs/monitoring/cloudlunacy-alerts.yml").read_text()
    anchors = set(re.findall(r"runbook_url: https://docs\.example\.com/runbooks/#(\S+)", rules))
    page = site / "runbooks" / "index.html"
    assert anchors
    assert anchors <= set(re.findall(r'id="([a-z0-9]+)"', page.read_text(encoding="utf-8")))


def anchors_of(page: Path) -> set[str]:
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = [re.sub(r"[`*]|\]\([^)]*\)|\[", "", one) for one in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)]
    return {slugify(one, "-") for one in headings} | set(re.findall(r'id="([^"]+)"', text))


def links() -> Iterator[tuple[Path, str]]:
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("state-repo-example/*.md")):
        text = re.sub(
            r"^ *```.*?^ *```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
        )
        yield from ((page, target) for target in LINK.findall(text))


def test_anchors_are_there() -> None:
    """A heading that was renamed takes the links to it along, in the README too, which is no page of the site."""
    lost = []
    for page, target in links():
        path, _, anchor = target.partition("#")
        if anchor and "://" not in target:
            aim = page.parent / path if path else page
            if aim.suffix == ".md" and anchor not in anchors_of(aim):
                lost.append(f"{page.name}: {target}")
    assert lost == []


def test_addresses_of_others_are_written_as_such() -> None:
    """https and a host; nobody is asked whether they are there."""
    strange = [
        target
        for _, target in links()
        if "://" in target and not re.fullmatch(r"https?://[a-z0-9.-]+\.[a-z]+(/\S*)?", target)
    ]
    assert strange == []


def test_files_that_pages_name_as_proof_are_there() -> None:
    """A test that moves takes the sentences along that rest on it."""
    text = (ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests/[a-z/]+)?/?test_[a-z_]+\.py|tests/[a-z/]+)`", text)
    assert len(named) > 5
    assert [one for one in named if not (ROOT / one).exists() and not (ROOT / "tests/integration" / one).exists()] == []


def test_the_reference_is_what_the_program_says() -> None:
    """As ``make check`` says too; and it is the same each time that it is made."""
    first = pages()
    assert first == pages()
    assert list(stale(first)) == []
    assert FOLDER.is_dir()
