"""A directory is read as git would give it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from reconciler.commands.tree import blob_id, read_directory
from reconciler.desired.news import Unusable
from reconciler.desired.parse import Parsed
from reconciler.desired.yaml_reader import MAX_BYTES
from reconciler.errors import Broken
from tests.support import documents


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "routes/shop").mkdir(parents=True)
    (tmp_path / "fleet.yaml").write_bytes(documents.fleet())
    (tmp_path / "routes/shop/web.yaml").write_bytes(documents.route("web"))
    return tmp_path


def test_blob_ids_are_those_of_git(tmp_path: Path) -> None:
    """The id of a file is what git hash-object says."""
    (tmp_path / "file").write_bytes(b"hello\n")
    said = subprocess.run(["git", "hash-object", tmp_path / "file"], capture_output=True, text=True, check=True)
    assert blob_id(b"hello\n") == said.stdout.strip()


def test_only_files_of_a_state_repo_are_read(repo: Path) -> None:
    """What lies beside objects, and git's own folder, is left alone."""
    (repo / ".git/routes").mkdir(parents=True)
    (repo / ".git/routes/x.yaml").write_text("x")
    (repo / "docs/routes").mkdir(parents=True)
    (repo / "docs/routes/x.yaml").write_text("x")
    (repo / "README.md").write_text("x")
    assert set(read_directory(repo).files) == {"fleet.yaml", "routes/shop/web.yaml"}


def test_links_are_reported_and_never_followed(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A link to a file or a folder is an entry with git's mode for links; nothing behind it is read."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.yaml").write_text("secret")
    (repo / "routes/shop/link.yaml").symlink_to(outside / "secret.yaml")
    (repo / "routes/other").symlink_to(outside)
    tree = read_directory(repo)
    assert {path: file.mode for path, file in tree.files.items() if file.mode == "120000"} == {
        "routes/shop/link.yaml": "120000",
        "routes/other": "120000",
    }
    assert b"secret" not in b"".join(tree.contents.values())


def test_what_is_no_regular_small_file_has_no_content(repo: Path) -> None:
    """Pipes and files that are too large are named and not read."""
    os.mkfifo(repo / "routes/shop/pipe.yaml")
    (repo / "routes/shop/large.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    tree = read_directory(repo)
    news = {one.path: one for one in tree.news()}
    assert isinstance(news["routes/shop/pipe.yaml"], Unusable)
    assert isinstance(large := news["routes/shop/large.yaml"], Parsed)
    assert large.object is None
    assert isinstance(news["routes/shop/web.yaml"], Parsed)


def test_an_executable_file_has_gits_mode(repo: Path) -> None:
    """An executable file is 100755, as git would say."""
    (repo / "routes/shop/web.yaml").chmod(0o755)
    assert read_directory(repo).files["routes/shop/web.yaml"].mode == "100755"


@pytest.mark.parametrize("what", ["missing", "file", "empty"])
def test_what_is_no_state_repo_is_refused(tmp_path: Path, what: str) -> None:
    """A missing folder, a file and a folder without objects are each refused with a sentence."""
    path = tmp_path / what
    if what == "file":
        path.write_text("x")
    elif what == "empty":
        path.mkdir()
    with pytest.raises(Broken, match=r"is no directory|holds no state repo"):
        read_directory(path)
