"""Where a clear text lies while a person edits it, and that it goes away."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from reconciler.commands import private_editing
from reconciler.commands.private_editing import edit, editor_command, private_file, shred
from reconciler.errors import Broken


@pytest.mark.parametrize(
    ("environment", "command"),
    [
        ({}, ["vi"]),
        ({"EDITOR": "nano"}, ["nano"]),
        ({"EDITOR": "nano", "VISUAL": "code --wait 'my profile'"}, ["code", "--wait", "my profile"]),
        ({"EDITOR": "", "VISUAL": ""}, ["vi"]),
    ],
)
def test_the_editor_is_the_one_that_the_person_named(environment: dict[str, str], command: list[str]) -> None:
    """VISUAL before EDITOR before vi, with arguments."""
    assert editor_command(environment) == command


@pytest.mark.parametrize("words", [" ", "'"])
def test_an_editor_that_is_no_command_is_told(words: str) -> None:
    """Nothing is started for it."""
    with pytest.raises(Broken, match="holds no command"):
        editor_command({"EDITOR": words})


def test_without_a_place_in_memory_the_runtime_directory_serves_and_else_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Systems without /dev/shm have a directory of the user's session, or the person is told that it is on a disk."""
    monkeypatch.setattr(private_editing, "IN_MEMORY", tmp_path / "missing")
    with private_file("x", "text", {"XDG_RUNTIME_DIR": str(tmp_path)}) as file:
        assert file.parent.parent == tmp_path
    assert capsys.readouterr().err == ""
    with private_file("x", "text", {}) as file:
        assert file.read_text() == "text"
    assert "no directory in memory" in capsys.readouterr().err
    assert not file.parent.exists()


def test_everything_is_overwritten_before_it_is_removed(tmp_path: Path) -> None:
    """A second name of a file, such as a backup's, ends with zeros; what a link leads to is left alone."""
    directory, outside, other = tmp_path / "private", tmp_path / "name", tmp_path / "other"
    (directory / "below").mkdir(parents=True)
    (directory / "below/x").write_text("clear")
    outside.hardlink_to(directory / "below/x")
    other.write_text("mine")
    (directory / "link").symlink_to(other)
    shred(directory)
    assert not directory.exists()
    assert outside.read_bytes() == b"\0" * 5
    assert other.read_text() == "mine"


def test_signals_are_as_they_were_afterwards(tmp_path: Path) -> None:
    """Also when the block fails."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(Broken), private_file("x", "text", {}) as file:
        edit(file, ["false"])
    assert [signal.getsignal(number) for number in numbers] == before
