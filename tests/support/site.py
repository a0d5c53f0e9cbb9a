"""What mkdocs is told beyond mkdocs.yml: every decision is in the menu, and links out of docs/ lead to the repository.

A hook of mkdocs (https://www.mkdocs.org/user-guide/configuration/#hooks).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

ROOT = Path(__file__).parents[2]
OUTSIDE = re.compile(r"(!?)\[([^\]]*)\]\((\.\./[^)\s]*|adr|monitoring)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the decisions by number."""
    found = sorted(path.name for path in Path(config.docs_dir, "adr").glob("[0-9]*.md"))
    for section in config.nav or ():
        if "Decisions" in section:
            section["Decisions"] = [f"adr/{name}" for name in found]
    return config


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Name a file of the repository instead of linking to it: the site does not have it."""
    folder = ROOT / "docs" / Path(page.file.src_uri).parent

    def named(link: re.Match[str]) -> str:
        target = (folder / link[3].partition("#")[0]).resolve()
        if target.is_relative_to(ROOT / "docs") and target.is_file():
            return link[0]
        return f"{link[2]} (`{target.relative_to(ROOT)}`)"

    return OUTSIDE.sub(named, markdown)
