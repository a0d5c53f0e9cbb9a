"""What the branch holds: at the tip of the remote, or the newest that is known here."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from reconciler.desired.snapshot import REGULAR_FILE, Change, changes_between
from reconciler.desired.state import State, files_of
from reconciler.desired.yaml_reader import MAX_BYTES
from reconciler.errors import Refused, Rejected, Transient
from reconciler.git.mirror import Mirror

PUSHED_SECONDS: Final = 60.0
"""So long what we pushed counts as the newest, until the loop has looked at it or something after it."""


@dataclass(frozen=True, slots=True)
class Held:
    """A file at a revision."""

    blob: str
    content: bytes


class Branch:
    """``newest()`` is the newest revision that the loop has looked at, empty before the first."""

    def __init__(
        self, mirror: Mirror, newest: Callable[[], str], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.mirror = mirror
        self._newest = newest
        self._monotonic = monotonic
        self._pushed: tuple[str, float] | None = None

    def pushed(self, revision: str) -> None:
        """Take note of a commit of ours on the branch, so that whoever made it reads it at once."""
        self._pushed = (revision, self._monotonic())

    async def fresh(self) -> str:
        """Return the tip of the remote; the newest that is known here while the remote is away.

        Raises:
            Refused: 503 ``not-ready``, where nothing is known.
        """
        try:
            revision = await self.mirror.head()
            await self.mirror.fetch(revision)
        except Transient:
            return await self.newest()
        return revision

    async def newest(self) -> str:
        """Return the newest revision that is known here; no network.

        Raises:
            Refused: 503 ``not-ready``.
        """
        revision = self._newest()
        if not revision:
            raise Refused("No revision is known yet.", status=503, code="not-ready", retry_after=2.0)
        if self._pushed is None:
            return revision
        pushed, since = self._pushed
        if self._monotonic() - since > PUSHED_SECONDS or await self._descends(revision, pushed):
            self._pushed = None
            return revision
        return pushed

    async def _descends(self, revision: str, ancestor: str) -> bool:
        try:
            return revision == ancestor or await self.mirror.descends(revision, ancestor)
        except Rejected:
            return False

    async def files(self, revision: str, paths: Collection[str]) -> Mapping[str, Held]:
        """Return what stands at ``paths``; what is not there is left out.

        Raises:
            Refused: 409 ``not-a-regular-file``, for links, folders, submodules and what is too large to be an object.
            Rejected: the revision is not here (``UnknownRevision``).
        """
        found = (await self.mirror.entries(revision, sorted(paths))).files
        for path, file in found.items():
            if file.mode != REGULAR_FILE:
                raise _irregular(path)
        contents = await self.mirror.read([file.blob for file in found.values()], max_bytes=MAX_BYTES)
        held = {}
        for path, file in found.items():
            content = contents.get(file.blob)
            if not isinstance(content, bytes):
                raise _irregular(path)
            held[path] = Held(file.blob, content)
        return held

    async def blobs(self, revision: str, paths: Collection[str]) -> Mapping[str, str]:
        """Return the blob ids at ``paths``; what is not there is left out.

        Raises:
            Rejected: the revision is not here (``UnknownRevision``).
        """
        found = (await self.mirror.entries(revision, sorted(paths))).files
        return {path: file.blob for path, file in found.items()}

    async def ahead(self, state: State, revision: str) -> tuple[tuple[Change, ...], Mapping[str, bytes]]:
        """Return what ``revision`` holds that ``state`` does not come from, and the contents of these files.

        Raises:
            Rejected: the revision is not here (``UnknownRevision``).
        """
        if revision == state.revision:
            return (), {}
        changes = await self._changes(state, revision)
        wanted = [change.file.blob for change in changes if change.file is not None]
        read = await self.mirror.read(wanted, max_bytes=MAX_BYTES)
        return changes, {blob: content for blob, content in read.items() if isinstance(content, bytes)}

    async def _changes(self, state: State, revision: str) -> tuple[Change, ...]:
        try:
            found = await self.mirror.changes(state.revision, revision)
        except Rejected:  # git does not have it any more: what is in service says what was there
            found = changes_between(files_of(state), (await self.mirror.snapshot(revision)).files)
        return tuple(change for change in found if change.file is None or change.file.mode != "160000")


def _irregular(path: str) -> Refused:
    text = f'"{path}" is not a regular file of at most {MAX_BYTES:,} bytes in the repository.'
    return Refused(text, status=409, code="not-a-regular-file", hint="Mend it with git.")
