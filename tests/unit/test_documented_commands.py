"""Commands that pages show: the program takes them as they stand there."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from reconciler import cli
from reconciler.__main__ import COMMANDS

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("state-repo-example/*.md"))
    if path.name != "CHANGELOG.md"
)
BLOCK: Final = re.compile(r"^ *```(?!yaml|json|toml|ini)\w*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE: Final = re.compile(r"`(cloudlunacy [^`]+)`")
VALUES: Final = {
    "CHECKSUM": "0" * 64,
    "HEX": "0" * 64,
    "REV": "0" * 40,
    "SECONDS": "1",
    "HOST:PORT": "127.0.0.1:7300",
}
"""What stands for a value, and one of the form that it needs."""


@cache
def parser_of(command: str) -> argparse.ArgumentParser:
    return cli.make_parser(COMMANDS, command)


def words_of(line: str) -> list[str]:
    """Return the words of a line of a shell up to what is no argument, without the program's name."""
    line = re.sub(r"\"?\$\([^)]*\)\"?", "0" * 40, line.partition("  #")[0])
    line = re.sub(r"<[A-Z]+>", "VALUE", line)
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("|&;<>"):
            break
        words.append(VALUES.get(word, word))
    if words[-1:] == ["2"]:  # of a redirection
        words.pop()
    return words[1:]


def shown(page: Path) -> Iterator[str]:
    """Return the commands of a page's blocks, each in one line."""
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            line = line.partition("  #")[0].strip()  # noqa: PLW2901 - without what is said about it
            found = re.search(r"(?:^|[\s(])(cloudlunacy (?!cloudlunacy )[a-z].*)", line)
            if found is not None and "…" not in line and not line.startswith(("#", "- ", "alias")):
                yield found[1]


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what the program says against these words; empty where it takes them."""
    try:
        _, strange = parser_of(words[0]).parse_known_args(words)
    except SystemExit as ended:
        said = capsys.readouterr().err
        return "" if ended.code == 0 else said.splitlines()[-1]
    return f"unrecognized: {strange}" if strange else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_blocks_are_taken(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Command, flags and the number of arguments are right; nothing is run."""
    refused = {line: said for line in shown(page) if (said := refusal(words_of(line), capsys))}
    assert refused == {}


def test_commands_within_text_have_flags_that_there_are() -> None:
    """They may leave out what they need, and yet no flag is made up."""
    strange: list[str] = []
    for page in PAGES:
        for text in INLINE.findall(page.read_text(encoding="utf-8")):
            words = words_of(" ".join(text.split()))
            if not words or not re.fullmatch(r"[a-z-]+", words[0]):
                continue
            if words[0] not in {entry.name for entry in COMMANDS}:
                strange.append(text)
                continue
            known = _flags(parser_of(words[0]), words)
            strange += [
                f"{page.name}: {text}" for word in words if word.startswith("--") and word.split("=")[0] not in known
            ]
    assert strange == []


def _flags(parser: argparse.ArgumentParser, words: list[str]) -> set[str]:
    """Return the flags of a command and of the actions that are named."""
    known = {"--help", "--"}
    for action in parser._actions:
        known |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            for name, one in action.choices.items():
                if name in words:
                    known |= _flags(one, words)
    return known
