"""Markdown in which text from outside stays text. PURE.

A name in a commit may be ``@everyone``, ``<img …>`` or ``[click](https://…)``. No list of characters to escape holds at
every forge: some look for mentions, references and bare URLs after the Markdown is read. A code span does hold, at all
of them (CommonMark 6.1; GitHub, GitLab, Gitea and Bitbucket leave code alone), so text from outside stands in code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from schemas.text import visible

MOST: Final = 300
"""Characters of one text."""
_BACKTICKS: Final = re.compile(r"`+")
_PIPE: Final = "│"
"""Stands for ``|``, which ends a cell of a table even in code, and whose escape not every forge takes back."""


def code(text: str, limit: int = MOST) -> str:
    """Return a code span with the text, on one line and at most ``limit`` characters of it; empty for none."""
    shown = visible(" ".join(text.split()))
    shown = shown if len(shown) <= limit else f"{shown[: limit - 1]}…"
    if not shown:
        return ""
    shown = shown.replace("|", _PIPE)
    mark = "`" * (1 + longest_run(shown))
    space = " " if shown[0] in "` " or shown[-1] in "` " else ""
    return f"{mark}{space}{shown}{space}{mark}"


def fence(text: str, limit: int = 4000) -> str:
    """Return a fenced block with the text, at most ``limit`` characters of it (CommonMark 4.5)."""
    lines = [visible(line) for line in text.splitlines()]
    shown = "\n".join(lines).strip()
    shown = shown if len(shown) <= limit else f"{shown[: limit - 1]}…"
    mark = "`" * max(3, 1 + longest_run(shown))
    return f"{mark}text\n{shown}\n{mark}"


def longest_run(text: str) -> int:
    """Return how many backticks stand together at most."""
    return max((len(run) for run in _BACKTICKS.findall(text)), default=0)


def fitting(lines: Sequence[str], limit: int, note: str) -> str:
    """Join whole lines up to ``limit`` characters; where some are left out, ``note`` says so at the end.

    A part that was opened with ``<details>`` is closed again.
    """
    whole = "\n".join(lines)
    if len(whole) <= limit:
        return whole
    closing = "\n\n</details>"
    room = limit - len(note) - len(closing) - 2
    kept: list[str] = []
    used = 0
    for line in lines:
        used += len(line) + 1
        if used > room:
            break
        kept.append(line)
    text = "\n".join(kept)
    is_open = text.count("<details") > text.count("</details>")
    return f"{text}{closing if is_open else ''}\n\n{note}"
