"""A machine that was away while what it verifies with was replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import left_behind, status
from agent.credentials import AgentFile
from agent.left_behind import Note
from schemas.jwk import JwkSet

WHY = f"The document is signed by a key that is not pinned here. {left_behind.way_back('vps-1')}"


def test_status_says_what_to_do_until_it_is_done(tmp_path: Path) -> None:
    """From the disk alone, also after the agent ended."""
    AgentFile(name="vps-1", server="https://a.test", issuer="https://a.test", jwks=JwkSet(keys=())).save(tmp_path)
    Note(tmp_path).write(WHY)
    assert f"left behind    {WHY}" in status.lines(tmp_path, 0)
    assert "cloudlunacy token create --agent vps-1" in WHY
    Note(tmp_path).clear()
    assert not any(line.startswith("left behind") for line in status.lines(tmp_path, 0))


def test_it_is_written_once(tmp_path: Path) -> None:
    """A control plane that sends the same again and again wears out no disk."""
    note = Note(tmp_path)
    note.write(WHY)
    (tmp_path / left_behind.FILE_NAME).unlink()
    note.write(WHY)

    assert left_behind.read(tmp_path) == ""


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"why": 1}', b"\xff", b"[" * 4096, b'{"why": "\\u001b[2J"}'])
def test_a_damaged_note_says_nothing(tmp_path: Path, content: bytes) -> None:
    """Least of all what a terminal would obey."""
    (tmp_path / left_behind.FILE_NAME).write_bytes(content)

    assert left_behind.read(tmp_path) == ""


def test_a_disk_that_takes_nothing_stops_nobody(tmp_path: Path) -> None:
    """The log says the same."""
    note = Note(tmp_path / "missing")
    note.write(WHY)
    note.clear()

    assert left_behind.read(tmp_path / "missing") == ""
