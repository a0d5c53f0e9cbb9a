"""A person's own clone, read only: what a revision holds, for ``validate`` and ``plan``."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from reconciler.desired.snapshot import Snapshot
from reconciler.errors import Broken
from reconciler.git.parsing import BatchReader, is_id, parse_sizes, parse_tree
from reconciler.git.runner import Command, GitRunner

SECONDS = 60.0


class LocalRepository:
    """The repository that ``directory`` is in. Use as a context manager; paths are relative to ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self._home = tempfile.TemporaryDirectory(prefix="cloudlunacy-git-")
        self._runner = GitRunner(Path(self._home.name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()
        self._home.cleanup()

    async def snapshot(self, name: str) -> Snapshot:
        """Return the files below the directory in a revision, by any name that git knows for it.

        Raises:
            Broken: when this is no repository, or it knows no such revision.
        """
        revision = (await self._git("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")).decode().strip()
        if not is_id(revision):
            raise Broken(f'"{name}" is no revision here.')
        prefix = (await self._git("rev-parse", "--show-prefix")).decode().strip()
        tree = f"{revision}:{prefix}" if prefix else revision
        output = await self._git("ls-tree", "-r", "-z", "--full-tree", "--end-of-options", tree)
        return Snapshot(revision, parse_tree(output))

    async def read(self, blobs: Mapping[str, None], *, max_bytes: int) -> dict[str, bytes]:
        """Return contents by blob id, without those that are larger than ``max_bytes``."""
        if not blobs:
            return {}
        asked = "".join(f"{blob}\n" for blob in blobs).encode()
        sizes = parse_sizes(await self._git("cat-file", "--batch-check", stdin=asked))
        small = [blob for blob, size in sizes.items() if size is not None and size <= max_bytes]
        reader = BatchReader(max_bytes)
        reader.feed(await self._git("cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in small).encode()))
        return reader.contents

    async def _git(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        command = Command(["-C", str(self._directory), *arguments], SECONDS, stdin=stdin)
        finished = await self._runner.run(command)
        if finished.status:
            what = finished.words.strip().splitlines() or [f"git {arguments[0]} failed"]
            hint = "Run it inside the clone of a state repo, and name a branch, tag or commit."
            raise Broken(f"{what[-1].removeprefix('fatal: ')}.", hint=hint)
        return finished.stdout
