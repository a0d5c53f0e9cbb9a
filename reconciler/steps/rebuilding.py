"""What was in service, found out again without the store: from git, and from what a front's file names.

A start that knows nothing of what is in service would take any commit for a first one: no deletion would be too large,
and no history rewritten (docs/adr/0016). :class:`Rebuilding` brings the files of a revision here, and settles a
revision of which nothing but its id is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from reconciler.desired.routing import compile_route
from reconciler.desired.settle import settle
from reconciler.desired.snapshot import Change, File, changes_between
from reconciler.desired.state import State, files_of
from reconciler.desired.view import OpenSecret
from reconciler.errors import Rejected, Transient
from reconciler.observability.logs import get_logger
from reconciler.steps.reading import DocumentReader
from reconciler.steps.source import Repository
from schemas.objects import key_of_path

log = get_logger(__name__)

LOOKED_BACK: Final = 50
"""Commits in which the last good version of a quarantined object is looked for."""


class Rebuilding:
    """``head()`` asks for the newest commit of the branch."""

    def __init__(
        self,
        repository: Repository,
        head: Callable[[], Awaitable[str]],
        reader: DocumentReader,
        open_sealed: OpenSecret,
    ) -> None:
        self._repository = repository
        self._head = head
        self._reader = reader
        self._open_sealed = open_sealed

    async def files(self, revision: str) -> Mapping[str, File]:
        """List the files of a revision that was published, which is mostly here: fetching walks all that it reaches.

        Raises:
            Rejected: when neither this machine nor the remote has it any more.
            Transient: when the remote cannot be reached.
        """
        with contextlib.suppress(Rejected):
            return (await self._repository.snapshot(revision)).files
        try:
            await self._repository.fetch(revision)
        except Transient as error:
            if error.reason != "RemoteMoved":
                raise
            # a remote may hand out nothing but its branches, so it may still come with the newest commit
            await self._require_in_history(revision)
        return (await self._repository.snapshot(revision)).files

    async def settled(self, revision: str, start: State) -> State:
        """Settle a revision that a front's file names, going on from ``start``, the newest state that is known.

        Whoever can write that file must not choose what goes live: the revision has to be in the branch's history.
        Where a quarantined object has no last good version in ``start``, the commits before are settled one by one.

        Raises:
            Rejected: when the revision is not in the branch's history.
            Transient: when the remote cannot be reached.
        """
        await self._require_in_history(revision)
        state = await self._after(start, revision)
        return await self._replayed(revision) if _lacks_last_good(state) else state

    async def _require_in_history(self, revision: str) -> None:
        head = await self._head()
        await self._repository.fetch(head)
        if not await self._repository.descends(head, revision):
            message = f"{revision[:12]} is not in the history of {head[:12]}, the newest commit of the branch."
            raise Rejected(message, reason="UnknownRevision")

    async def _after(self, state: State, revision: str) -> State:
        files = (await self._repository.snapshot(revision)).files
        return await self._settle(state, revision, changes_between(files_of(state), files))

    async def _replayed(self, revision: str) -> State:
        """Settle the commits that lead to ``revision`` in turn, as if each had been published."""
        line = [revision]
        while len(line) <= LOOKED_BACK and (parents := (await self._repository.commit(line[0])).parents):
            line.insert(0, parents[0])
        state = await self._after(State(), line[0])
        for former, later in itertools.pairwise(line):
            state = await self._settle(state, later, await self._repository.changes(former, later))
        return state

    async def _settle(self, state: State, revision: str, changes: tuple[Change, ...]) -> State:
        news = await self._reader.read(changes)
        settled = await asyncio.to_thread(
            settle, state, revision, news, compile_route=compile_route, open_sealed=self._open_sealed
        )
        return settled.state


def _lacks_last_good(state: State) -> bool:
    keys = map(key_of_path, state.quarantined)
    return any(key is not None and key not in state.served for key in keys)
