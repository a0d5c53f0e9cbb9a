"""What ``agent enrol`` says of its machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent import cli
from agent.enrol import EnrolmentFailed, Wanted
from agent.installing.layout import Layout
from reconciler.__main__ import main
from schemas.enrolment import Enrolment


@pytest.mark.parametrize(
    ("words", "found", "sent"),
    [
        ([], ("process",), ("process",)),
        ([], (), ("container", "process", "mongodb")),
        (["--capability", "none"], ("container",), ()),
        (["--capability", "container", "--capability", "process"], (), ("container", "process")),
    ],
    ids=["found", "nothing found", "none", "said"],
)
def test_capabilities_are_those_that_are_said_or_else_found(
    words: list[str], found: tuple[str, ...], sent: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine of which nothing is known is refused nothing; what it lacks is said when it is to run it."""
    asked = []

    async def enrol(wanted: Wanted, data: Path, **_: Any) -> Enrolment:
        asked.append(wanted.capabilities)
        raise EnrolmentFailed("This is all.")

    def look(layout: Layout) -> tuple[str, ...]:
        assert layout.root == Path("/")
        return found

    monkeypatch.setattr(cli, "enrol", enrol)
    monkeypatch.setattr(cli, "capabilities_of", look)
    line = ["agent", "enrol", "--server", "http://127.0.0.1:1", "--token", "t", "--name", "vps-1"]
    assert main([*line, "--data", str(tmp_path), *words]) == 1
    assert asked == [sent]
