"""What pages show of a revision: how far its agents are, and the lines that its problems are about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from reconciler.desired.snapshot import Snapshot
from reconciler.errors import CloudLunacyError
from reconciler.observability.logs import get_logger
from schemas.problem import Problem
from schemas.status import AgentProgress

log = get_logger(__name__)

_REGULAR: Final = frozenset({"100644", "100755"})
_LONGEST: Final = 200
"""Characters of a line that are shown."""
MAX_FILES: Final = 50
_ORDER: Final = {"failed": 0, "progressing": 1, "pending": 2, "offline": 3, "applied": 4}


class Files(Protocol):
    """The mirror of the state repo."""

    async def entries(self, revision: str, paths: Sequence[str]) -> Snapshot: ...
    async def read(self, blobs: Sequence[str], *, max_bytes: int = 65536) -> Mapping[str, object]: ...


def in_order(agents: Mapping[str, AgentProgress]) -> list[tuple[str, AgentProgress]]:
    """Return agents with their progress, those first that hold something up."""
    return sorted(agents.items(), key=lambda one: (_ORDER.get(one[1].state, 0), one[0]))


class QuotedLines:
    """Finds the text that problems point at. What may hold a secret is not shown."""

    def __init__(self, files: Files) -> None:
        self._files = files

    async def of(self, revision: str, problems: Iterable[Problem]) -> dict[tuple[str, int], str]:
        """Return (file, line) → its text, for as many as can be read; a page is there without them as well."""
        every = tuple(problems)
        silent = {(one.file, one.line) for one in every if one.code == "plain-secret"}
        wanted: dict[str, set[int]] = {}
        for one in every:
            is_shown = not one.file.startswith("secrets/") and (one.file, one.line) not in silent
            if is_shown and (one.file in wanted or len(wanted) < MAX_FILES):
                wanted.setdefault(one.file, set()).add(one.line)
        if not wanted:
            return {}
        try:
            entries = (await self._files.entries(revision, sorted(wanted))).files
            blobs = {path: entry.blob for path, entry in entries.items() if entry.mode in _REGULAR}
            contents = await self._files.read(sorted(set(blobs.values())))
        except CloudLunacyError as error:
            log.info("lines of problems cannot be read", revision=revision, error=str(error))
            return {}
        found: dict[tuple[str, int], str] = {}
        for path, numbers in wanted.items():
            content = contents.get(blobs.get(path, ""))
            lines = content.decode("utf-8", "replace").splitlines() if isinstance(content, bytes) else []
            found |= {(path, number): lines[number - 1][:_LONGEST] for number in numbers if 0 < number <= len(lines)}
        return found
