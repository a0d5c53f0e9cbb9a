"""All templates: what none of them may hold, so that the content security policy can be as strict as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reconciler.package_data import data_directory

FOLDER = data_directory("templates") / "dashboard"
TEMPLATES = sorted(FOLDER.glob("**/*.j2"))
SOURCES = sorted(path for path in (FOLDER / "static").iterdir() if path.suffix in (".js", ".css", ".svg"))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_holds_script_or_style(path: Path) -> None:
    """Neither blocks nor attributes, no address that is a script, nothing from another host, nothing unescaped."""
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)[^>]*>", text) == []
    assert re.findall(r"<style|\sstyle\s*=|\son[a-z]+\s*=\s*[\"']|javascript:", text) == []
    assert re.findall(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//""", text) == []
    assert re.findall(r"\|\s*safe\b|autoescape|Markup", text) == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_attribute_is_quoted(path: Path) -> None:
    """A value in an attribute without quotes could begin another attribute."""
    assert re.findall(r"<[a-z][^<>]*\s[a-z-]+=\{\{", path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_what_pages_load_names_no_other_host(path: Path) -> None:
    """And writes no markup made of text: what a tenant named would become elements."""
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
    assert re.findall(r"https?://|\beval\(|new Function|innerHTML\s*=|insertAdjacentHTML|document\.write", text) == []


@pytest.mark.parametrize("name", ["h1", "h2", "h3", "p", "li", "dd", "summary", ".warning", ".danger"])
def test_a_long_word_breaks(name: str) -> None:
    """What others wrote may be one long word, and would make a page wider than a phone."""
    text = (FOLDER / "static" / "app.css").read_text(encoding="utf-8")
    rules = re.findall(r"^([^{}@/]+) \{([^{}]*)\}", text, re.MULTILINE)
    breaking = {one.strip() for names, said in rules if "overflow-wrap: anywhere" in said for one in names.split(",")}
    assert name in breaking
