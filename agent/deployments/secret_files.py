"""Files from secrets: in memory (tmpfs), never on a disk, each readable for the user of its workload alone.

``<folder>/<instance>/<number>``, mode 0400 in folders of 0700. An engine mounts the files one by one, read-only. What
is in memory ends with the machine; then an instance is made anew, which writes them again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from agent.deployments.driver import DriverError

FOLDER: Final = Path("/run/cloudlunacy")
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_MOUNTS: Final = Path("/proc/self/mountinfo")


class SecretFiles:
    """The files of one agent. All methods block, for microseconds."""

    def __init__(self, folder: Path, agent: str) -> None:
        self._folder = folder / agent

    def write(self, instance: str, files: Mapping[str, str], owner: tuple[int, int]) -> dict[str, Path]:
        """Write the files of an instance, in place of those it had; return them by their paths in it.

        Raises:
            DriverError: there is no memory to write to, or not the right.
        """
        place = self._folder / instance
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            kind = file_system_of(self._folder)
            if kind not in _IN_MEMORY:
                text = f"{self._folder} lies on {kind or 'a disk'}, not in memory, so no secret is written there."
                raise DriverError("NotInMemory", text, retryable=True)
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(mode=0o700)
            return {path: _write(place / str(number), text, owner) for number, (path, text) in enumerate(files.items())}
        except OSError as error:
            text = f"Files of secrets cannot be written below {self._folder}: {error.strerror}."
            raise DriverError("NotWritten", text, retryable=True) from None

    def remove(self, instance: str) -> None:
        """Remove what an instance had, if it had any."""
        shutil.rmtree(self._folder / instance, ignore_errors=True)

    def keep_only(self, instances: Collection[str]) -> None:
        """Remove what belongs to no instance: somebody else removed it, or the agent was killed before."""
        try:
            found = [path.name for path in self._folder.iterdir()]
        except OSError:
            return
        for name in found:
            if name not in instances:
                self.remove(name)


def are_there(paths: Iterable[str]) -> bool:
    return all(Path(path).exists() for path in paths)


def _write(path: Path, text: str, owner: tuple[int, int]) -> Path:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb") as file:
        file.write(text.encode())
        if owner != (os.geteuid(), os.getegid()):
            os.fchown(file.fileno(), *owner)
    return path


def file_system_of(path: Path, mounts: Path = _MOUNTS) -> str:
    """Return the type of the file system that a path lies on (proc(5), mountinfo); empty where nobody knows."""
    here, best, kind = str(path.resolve()), "", ""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = fields.split(" ")[4].replace("\\040", " ")
        if (here == point or here.startswith(f"{point.rstrip('/')}/")) and len(point) >= len(best):
            best, kind = point, rest.split(" ")[0]
    return kind
