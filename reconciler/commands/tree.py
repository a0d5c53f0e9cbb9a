"""The files of a state repo as they lie in a directory, in the form in which git would give them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from reconciler.desired.parse import is_object_path
from reconciler.desired.snapshot import File
from reconciler.desired.tree import Tree, blob_id
from reconciler.desired.yaml_reader import MAX_BYTES
from reconciler.errors import Broken
from schemas.objects import FLEET_PATH

__all__ = ["Tree", "blob_id", "read_directory"]

MAX_FILES = 200_000


def read_directory(directory: Path) -> Tree:
    """Read the object files below ``directory``. Links are not followed; they are reported later.

    Raises:
        Broken: when it is no directory, holds no state repo, or cannot be read.
    """
    if not directory.is_dir():
        raise Broken(f"{directory} is no directory.", hint="Name the folder of a state repo, or a revision of one.")
    files: dict[str, File] = {}
    contents: dict[str, bytes] = {}
    try:
        for path in _walk(directory):
            name = path.relative_to(directory).as_posix()
            files[name], content = _read(path)
            if content is not None:
                contents[files[name].blob] = content
            if len(files) > MAX_FILES:
                raise Broken(f"{directory} holds more than {MAX_FILES:,} object files.")
    except OSError as error:
        raise Broken(f"{error.filename} cannot be read: {error.strerror}.") from None
    if not files:
        hint = f"A state repo has {FLEET_PATH} at its root; make one with: cloudlunacy init DIR"
        raise Broken(f"{directory} holds no state repo.", hint=hint)
    return Tree(files, contents)


def _walk(directory: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(directory, followlinks=False):
        here = Path(root)
        links = [name for name in folders if (here / name).is_symlink()]
        top = here == directory
        folders[:] = sorted(
            name
            for name in folders
            if name not in links and (not top or is_object_path(f"{name}/x")) and name != ".git"
        )
        for name in sorted([*names, *links]):
            if is_object_path((here / name).relative_to(directory).as_posix()):
                yield here / name


def _read(path: Path) -> tuple[File, bytes | None]:
    mode = path.lstat()
    if stat.S_ISLNK(mode.st_mode):
        return File("120000", blob_id(os.fsencode(path.readlink()))), None
    if not stat.S_ISREG(mode.st_mode):
        return File("160000", ""), None
    git_mode = "100755" if mode.st_mode & stat.S_IXUSR else "100644"
    if mode.st_size > MAX_BYTES:
        return File(git_mode, f"too-large-{path.name}"), None
    content = path.read_bytes()
    return File(git_mode, blob_id(content)), content
