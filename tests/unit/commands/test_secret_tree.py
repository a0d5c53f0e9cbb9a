"""Files of secrets are written all or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.commands.secret_tree import SecretTree
from reconciler.errors import Broken

ONE, TWO, THREE = (f"secrets/shop/{name}.yaml" for name in ("one", "two", "three"))


@pytest.fixture
def tree(tmp_path: Path) -> SecretTree:
    (tmp_path / "secrets/shop").mkdir(parents=True)
    (tmp_path / ONE).write_text("first")
    (tmp_path / TWO).write_text("second")
    return SecretTree(tmp_path)


def contents(tree: SecretTree) -> dict[str, str]:
    files = (path for path in tree.directory.rglob("*") if path.is_file())
    return {path.relative_to(tree.directory).as_posix(): path.read_text() for path in files}


def test_files_are_replaced_and_made(tree: SecretTree) -> None:
    """A file keeps its mode; a folder that is missing is made."""
    (tree.directory / ONE).chmod(0o640)
    tree.write({ONE: b"new", "secrets/data/x.yaml": b"made"})
    assert contents(tree) == {ONE: "new", TWO: "second", "secrets/data/x.yaml": "made"}
    assert (tree.directory / ONE).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("good", [0, 1, 2])
def test_a_failure_in_between_puts_everything_back(
    tree: SecretTree, monkeypatch: pytest.MonkeyPatch, good: int
) -> None:
    """Wherever replacing fails, the files are as they were, and nothing lies beside them."""
    before, replace, count = contents(tree), Path.replace, [0]

    def fail_later(self: Path, target: Path) -> Path:
        count[0] += 1
        if count[0] > good:
            raise OSError(5, "Input/output error", str(target))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_later)
    with pytest.raises(Broken, match=r"Input/output error\. Nothing was changed\."):
        tree.write({THREE: b"new", ONE: b"new", TWO: b"new"})
    assert contents(tree) == before


def test_a_full_disk_changes_nothing(tree: SecretTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is written beside its place before the first file is replaced."""
    before, opened, count = contents(tree), os.fdopen, [0]

    def fail_later(*arguments: object, **more: object) -> object:
        count[0] += 1
        if count[0] > 1:
            os.close(arguments[0])  # type: ignore[arg-type]
            raise OSError(28, "No space left on device", "")
        return opened(*arguments, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "fdopen", fail_later)
    with pytest.raises(Broken, match="No space left on device"):
        tree.write({ONE: b"new", TWO: b"new"})
    assert contents(tree) == before


def test_only_files_of_secrets_are_listed(tree: SecretTree) -> None:
    """Other files beside them are nobody's secret."""
    for name in ("README.md", "Bad Name.yaml", "x.yml"):
        (tree.directory / "secrets/shop" / name).write_text("x")
    (tree.directory / "secrets/loose.yaml").write_text("x")
    assert tree.paths() == [ONE, TWO]


def test_what_is_no_file_is_not_opened(tree: SecretTree) -> None:
    """A pipe would be waited for without end."""
    os.mkfifo(tree.directory / THREE)
    with pytest.raises(Broken, match="no regular file"):
        tree.read(THREE)
