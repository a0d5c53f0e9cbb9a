"""What a command was pointed at: a directory, or a revision of the repository around the current directory."""

from __future__ import annotations

import asyncio
from pathlib import Path

from reconciler.commands.tree import Tree, read_directory
from reconciler.desired.parse import is_object_path
from reconciler.desired.snapshot import Snapshot
from reconciler.desired.yaml_reader import MAX_BYTES
from reconciler.errors import Broken
from reconciler.git.local import LocalRepository
from schemas.objects import FLEET_PATH


def tree_of(where: str) -> Tree:
    """Return the object files of a directory or revision.

    Raises:
        Broken: when it is neither, or holds no state repo.
    """
    path = Path(where)
    if _is_there(path):
        return read_directory(path)
    try:
        return tree_of_revision(where, Path())[1]
    except Broken as error:
        raise Broken(f"{where} is no directory, and as a revision: {error.message}", hint=error.hint) from None


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False


def tree_of_revision(name: str, directory: Path) -> tuple[str, Tree]:
    """Return the full id and the object files of a revision of the repository that ``directory`` is in."""
    snapshot, contents = asyncio.run(_read(name, directory))
    files = {path: file for path, file in snapshot.files.items() if is_object_path(path)}
    if not files:
        raise Broken(f"{name} holds no state repo.", hint=f"A state repo has {FLEET_PATH} at its root.")
    return snapshot.revision, Tree(files, contents)


async def _read(name: str, directory: Path) -> tuple[Snapshot, dict[str, bytes]]:
    with LocalRepository(directory) as repository:
        snapshot = await repository.snapshot(name)
        blobs = {file.blob: None for path, file in snapshot.files.items() if is_object_path(path)}
        return snapshot, await repository.read(blobs, max_bytes=MAX_BYTES)
