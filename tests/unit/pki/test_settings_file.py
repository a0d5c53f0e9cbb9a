"""Files of settings: what is wrong with one is said in a sentence that repeats no value."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import Broken
from reconciler.pki.settings_file import FileSettings, read_settings_file


class Table(FileSettings):
    host_name: str
    port: int = 80


def write(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "settings.toml"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_words_have_hyphens(tmp_path: Path) -> None:
    """As in TOML everywhere."""
    path = write(tmp_path, b'host-name = "one"\n')
    assert read_settings_file(path, Table, hint="") == Table(host_name="one")


@pytest.mark.parametrize(
    ("content", "mode", "sentence"),
    [
        (b'host-name = "canary"\nports = 1\n', 0o600, "ports: this is no field that is known"),
        (b'host-name = "one"\nport = "canary"\n', 0o600, "port: this has to be a whole number"),
        (b"canary\n", 0o600, "is no TOML"),
        (b"\xff", 0o600, "is no TOML"),
        (b'host-name = "canary"\n', 0o644, "is open to other users"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, content: bytes, mode: int, sentence: str) -> None:
    """With the file and the word it is about."""
    path = write(tmp_path, content, mode)
    with pytest.raises(Broken) as broken:
        read_settings_file(path, Table, hint="Look into the manual.")
    assert str(path) in broken.value.message
    assert sentence in broken.value.message
    assert "canary" not in broken.value.message
    assert broken.value.hint.startswith(("Look into the manual.", f"Run chmod 600 {path}"))


def test_what_holds_no_secret_may_be_open(tmp_path: Path) -> None:
    """Where the caller says so; a file that is not there is named."""
    path = write(tmp_path, b'host-name = "one"\n', 0o644)
    assert read_settings_file(path, Table, hint="", private=False).host_name == "one"
    with pytest.raises(Broken, match=r"none\.toml cannot be read"):
        read_settings_file(tmp_path / "none.toml", Table, hint="")
