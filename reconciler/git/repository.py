"""The mirror's files: where they lie, what a crash leaves behind, and how one repository takes another's place.

    <directory>/repository.git   the bare repository in use
    <directory>/rebuild-*        one that is being made; left over by a crash
    <directory>/broken-*         the former one, being deleted; left over by a crash
    <directory>/home             HOME and working directory of every git process

All of it can be deleted at any time and costs a download. One process owns it.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from reconciler.errors import Broken

REBUILD_PREFIX: Final = "rebuild-"
BROKEN_PREFIX: Final = "broken-"


class Repository:
    """Paths and repairs that need no git. Blocking; short but for deletions."""

    def __init__(self, directory: Path) -> None:
        # git runs in ``home``, where a relative path would mean something else.
        self.directory = directory.absolute()
        self.path = self.directory / "repository.git"
        self.home = self.directory / "home"
        self.epoch = 0
        """Grows when another repository takes the place: a process that failed meanwhile may just be repeated."""

    def exists(self) -> bool:
        """Say whether something stands at ``path``; it may be damaged."""
        return self.path.is_dir()

    def sweep(self) -> None:
        """Delete what a crash in the middle of a rebuild left behind.

        Raises:
            Broken: the directory cannot be written.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            leftovers = [*self.directory.glob(f"{REBUILD_PREFIX}*"), *self.directory.glob(f"{BROKEN_PREFIX}*")]
        except OSError as error:
            raise _unwritable(self.directory, error) from error
        for leftover in leftovers:
            shutil.rmtree(leftover, ignore_errors=True)

    def place_for_rebuild(self) -> Path:
        """Return an empty directory beside the repository.

        Raises:
            Broken: the directory cannot be written.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=REBUILD_PREFIX, dir=self.directory))
        except OSError as error:
            raise _unwritable(self.directory, error) from error

    def put_in_place(self, fresh: Path) -> None:
        """Make ``fresh`` the repository in use and delete the former one.

        Raises:
            Broken: the directory cannot be written.
        """
        try:
            former = Path(tempfile.mkdtemp(prefix=BROKEN_PREFIX, dir=self.directory))
            with suppress(FileNotFoundError):
                self.path.replace(former / self.path.name)
            fresh.replace(self.path)
        except OSError as error:
            raise _unwritable(self.directory, error) from error
        self.epoch += 1
        shutil.rmtree(former, ignore_errors=True)

    def remove_locks(self) -> None:
        """Delete lock files. Only for the owner, while no writing process of it runs: then they are stale."""
        for place, pattern in (("", "*.lock"), ("refs", "**/*.lock"), ("objects", "**/*.lock")):
            for lock in (self.path / place).glob(pattern):
                with suppress(OSError):
                    lock.unlink()

    def loose_and_packs(self) -> tuple[int, int]:
        """Return about how many loose objects and how many packs there are, by git's own way of sampling."""
        objects = self.path / "objects"
        return 256 * sum(1 for _ in objects.glob("17/*")), sum(1 for _ in objects.glob("pack/*.pack"))


def remove_partial_packs(repository: Path) -> int:
    """Delete what an ended download left, which git itself keeps; return the bytes of the largest file."""
    largest = 0
    for pattern in ("pack/tmp_*", "pack/.tmp-*", "*/tmp_obj_*"):
        for partial in (repository / "objects").glob(pattern):
            with suppress(OSError):
                largest = max(largest, partial.stat().st_size)
                partial.unlink()
    return largest


def _unwritable(directory: Path, error: OSError) -> Broken:
    return Broken(f"The mirror's directory {directory} cannot be written: {error.strerror}.")
