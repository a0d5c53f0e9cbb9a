"""The embedded engine: every protocol of ``reconciler.store.protocols`` over two SQLite files.

``outbox.db``  what was acknowledged to somebody and stands nowhere else: outbox, tokens, the mark of generations; and a
               copy of the newest publication, without which a lost ``state.db`` would cost more than a rebuild.
``state.db``   everything else; it may be deleted at any time, also while the program runs.

The files are apart so that damage to the large and busy one never touches the one that must not be lost
(docs/adr/0010-sqlite-as-embedded-engine.md). All methods may raise Transient (locked, disk full) and Broken (read-only,
damaged).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from reconciler.errors import CloudLunacyError
from reconciler.store.engine import Database, Mode
from reconciler.store.pauses import Paused
from reconciler.store.protocols import (
    ANY_EVENT,
    AgentObservation,
    ApiToken,
    Approval,
    Barred,
    EnrolmentToken,
    Event,
    EventFilter,
    OutboxEntry,
    Publication,
    RevisionRecord,
)
from reconciler.store.schema import OUTBOX_SCHEMA, STATE_SCHEMA
from reconciler.store.seen import Drained, SeenAgent
from reconciler.store.sqlite_sessions import SQLiteSessions
from reconciler.store.tables import (
    api_tokens,
    events,
    observations,
    outbox,
    own_commits,
    pauses,
    publications,
    records,
    tokens,
)
from reconciler.store.tables import barred as bars
from reconciler.store.tables import seen as sights
from reconciler.store.tables.text import dump

T = TypeVar("T")
log = logging.getLogger(__name__)

OBSERVATION_INTERVAL: Final = 1.0
"""Seconds for which observations are gathered before they are written in one transaction."""
GENERATION_MARK: Final = "generation"
GENERATIONS_AHEAD: Final = 1000
"""The mark in ``outbox.db`` is set this far ahead, so that it costs one fsync in a thousand publications."""


class SQLiteStore(SQLiteSessions):
    """Open with ``await SQLiteStore.open(directory)``, then use from the event loop, and ``close``."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: Callable[[], float] = time.time,
        observation_interval: float = OBSERVATION_INTERVAL,
    ) -> None:
        self._outbox = Database(directory, OUTBOX_SCHEMA, clock=clock)
        self._state = Database(directory, STATE_SCHEMA, clock=clock)
        self._clock = clock
        self._interval = observation_interval
        self._seen: dict[str, AgentObservation] = {}
        """Observations that are not yet written, the newest of each agent."""
        self._writer: asyncio.Task[None] | None = None
        self._generation_mark = 0
        self._plan_written = ("", "", 0)
        """Revision and checksum of the plan written last, and in which file: it need not be written again."""
        self.on_event: Callable[[Event], None] = lambda _: None
        """Called with every event once it is on disk; it must be quick."""

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        clock: Callable[[], float] = time.time,
        observation_interval: float = OBSERVATION_INTERVAL,
    ) -> SQLiteStore:
        """Open both files under ``directory``, making what is missing. Raises Broken or Transient."""
        store = cls(directory, clock=clock, observation_interval=observation_interval)
        await store._outbox.open()
        try:
            await store._state.open()
            store._generation_mark = await store._outbox.run(partial(tokens.mark, name=GENERATION_MARK))
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Write what is gathered and close both files."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        if self._seen:
            await self._write_observations()
        await self._state.close()
        await self._outbox.close()

    @property
    def notices(self) -> Sequence[str]:
        """Sentences about files that had to be replaced, for the timeline."""
        return (*self._outbox.notices, *self._state.notices)

    # --- TokenStore ---

    async def add_token(self, token: EnrolmentToken) -> None:
        """Durable. Raises ValueError when the id is taken."""
        await self._outbox.run(partial(tokens.add, token=token), Mode.DURABLE)

    async def token(self, token_id: str) -> EnrolmentToken | None:
        return await self._outbox.run(partial(tokens.get, token_id=token_id))

    async def use_token(self, token_id: str, thumbprint: str, now: float, *, entry: OutboxEntry | None = None) -> bool:
        def use(connection: sqlite3.Connection) -> bool:
            is_used = tokens.use(connection, token_id, thumbprint, now)
            if is_used and entry is not None:
                outbox.put(connection, entry)
            return is_used

        return await self._outbox.run(use, Mode.DURABLE)

    async def prune_tokens(self, before: float) -> int:
        """Forget the tokens that expired before that time; return how many."""
        return await self._outbox.run(partial(tokens.prune, before=before), Mode.WRITE)

    # --- Outbox ---

    async def put(self, entry: OutboxEntry) -> None:
        await self._outbox.run(partial(outbox.put, entry=entry), Mode.DURABLE)

    async def pending(self, limit: int = 1000) -> Sequence[OutboxEntry]:
        return await self._outbox.run(partial(outbox.pending, limit=limit))

    async def settle(self, outcomes: Mapping[str, tuple[str, str | None]], now: float) -> None:
        """Durable, all or none. What was settled before, or is unknown, stays as it is."""
        await self._outbox.run(partial(outbox.settle, outcomes=outcomes, now=now), Mode.DURABLE)

    async def failed(self, entry_ids: Sequence[str], error: str) -> None:
        await self._outbox.run(partial(outbox.failed, entry_ids=entry_ids, error=error), Mode.WRITE)

    async def outcome(self, entry_id: str) -> tuple[str, str | None] | None:
        return await self._outbox.run(partial(outbox.outcome, entry_id=entry_id))

    async def backlog(self) -> tuple[int, float | None]:
        """Return how many entries are pending, and when the oldest of them was accepted."""
        return await self._outbox.run(outbox.backlog)

    async def prune_outbox(self, before: float) -> int:
        """Forget the entries that were settled before that time; return how many. Pending ones stay for ever."""
        return await self._outbox.run(partial(outbox.prune, before=before), Mode.WRITE)

    # --- BarStore ---

    async def bar(self, barred: Barred, entry: OutboxEntry) -> None:
        def put(connection: sqlite3.Connection) -> None:
            bars.put(connection, barred)
            outbox.put(connection, entry)

        await self._outbox.run(put, Mode.DURABLE)

    async def barred(self) -> Sequence[Barred]:
        return await self._outbox.run(bars.every)

    async def unbar(self, barred: Barred) -> None:
        await self._outbox.run(partial(bars.remove, barred=barred), Mode.DURABLE)

    # --- ApiTokenStore ---

    async def save_api_token(self, token: ApiToken) -> None:
        await self._outbox.run(partial(api_tokens.save, token=token), Mode.DURABLE)

    async def api_tokens(self) -> Sequence[ApiToken]:
        return await self._outbox.run(api_tokens.every)

    async def forget_api_tokens(self, ended_before: float) -> int:
        return await self._outbox.run(partial(api_tokens.forget, ended_before=ended_before), Mode.WRITE)

    # --- OwnCommits ---

    async def put_own_commits(self, commits: Mapping[str, tuple[str, ...]]) -> None:
        now = self._clock()
        await self._outbox.run(partial(own_commits.put, commits=commits, now=now), Mode.DURABLE)

    async def own_commit(self, revision: str) -> tuple[str, ...] | None:
        return await self._outbox.run(partial(own_commits.paths_of, revision=revision))

    # --- SeenStore ---

    async def save_seen(self, agents: Sequence[SeenAgent]) -> None:
        await self._outbox.run(partial(sights.save, agents=agents), Mode.DURABLE)

    async def seen_agents(self) -> Sequence[SeenAgent]:
        return await self._outbox.run(sights.every)

    async def drain_agent(self, drained: Drained) -> None:
        await self._outbox.run(partial(sights.drain, drained=drained), Mode.DURABLE)

    async def undrain_agent(self, name: str) -> None:
        await self._outbox.run(partial(sights.undrain, name=name), Mode.DURABLE)

    async def drained_agents(self) -> Sequence[Drained]:
        return await self._outbox.run(sights.drained)

    async def forget_seen(self, names: Sequence[str]) -> None:
        await self._outbox.run(partial(sights.forget, names=names), Mode.WRITE)

    # --- PauseStore ---

    async def pause(self, paused: Paused) -> None:
        await self._outbox.run(partial(pauses.put, paused=paused), Mode.DURABLE)

    async def resume(self, deployment: str) -> None:
        await self._outbox.run(partial(pauses.remove, deployment=deployment), Mode.DURABLE)

    async def paused(self) -> Sequence[Paused]:
        return await self._outbox.run(pauses.every)

    # --- PublicationStore and ApprovalStore ---

    async def publication(self) -> Publication | None:
        newest = await self._state.run(publications.get)
        copy = await self._outbox.run(publications.get)
        return copy if copy is not None and (newest is None or newest.generation < copy.generation) else newest

    async def save_publication(self, publication: Publication) -> None:
        if publication.generation > self._generation_mark:
            ahead = publication.generation + GENERATIONS_AHEAD
            await self._outbox.run(partial(tokens.raise_mark, name=GENERATION_MARK, value=ahead), Mode.DURABLE)
            self._generation_mark = ahead
        document = publications.encode(publication)
        await self._state.run(partial(publications.save, publication=publication, document=document), Mode.DURABLE)
        # After it, so that it never names what was not published; not durable, because an older copy does no harm,
        # without releases: an older one would let agents delete what came back since
        copy = replace(publication, agents=None, confirmed=False, releases={})
        keeping = partial(publications.save, publication=copy, document=publications.encode(copy))
        await self._outbox.run(keeping, Mode.WRITE)

    async def confirm_publication(self, generation: int) -> None:
        await self._state.run(partial(publications.confirm, confirmed=generation), Mode.DURABLE)

    async def confirmed_publication(self) -> Publication | None:
        return await self._state.run(partial(publications.get, slot=publications.CONFIRMED))

    async def last_generation(self) -> int:
        """Return the number that the next generation must exceed, also after ``state.db`` was lost or set back."""
        generation = await self._state.run(publications.generation)
        copy = await self._outbox.run(publications.generation)
        # Below the last reservation, or below its copy, state.db is new, or an old copy of itself.
        is_whole = generation >= max(copy, self._generation_mark - GENERATIONS_AHEAD)
        return generation if is_whole else self._generation_mark

    async def approve(self, approval: Approval) -> None:
        """Durable. The first approval of a plan stays on record."""
        await self._state.run(partial(publications.approve, approval=approval), Mode.DURABLE)

    async def approval(self, checksum: str) -> Approval | None:
        return await self._state.run(partial(publications.approval, checksum=checksum))

    async def approvals(self, *, limit: int = 100, before: str = "") -> Sequence[Approval]:
        return await self._state.run(partial(publications.approvals, limit=limit, before=before))

    # --- RecordStore ---

    async def save_record(self, record: RevisionRecord) -> None:
        # Encoded here and not in the thread: the caller may go on to change the mappings in the record.
        row = records.encode(record)
        mark = (record.revision, records.plan_checksum(record.plan or {}), len(self._state.notices))
        plan = None if record.plan is None or mark == self._plan_written else dump(dict(record.plan))
        await self._state.run(partial(records.save, row=row, plan=plan), Mode.WRITE)
        if plan is not None and mark[1]:
            self._plan_written = mark

    async def record(self, revision: str) -> RevisionRecord | None:
        return await self._state.run(partial(records.get, revision=revision.lower()))

    async def records(
        self, *, limit: int = 50, before: float | None = None, plans: bool = True
    ) -> Sequence[RevisionRecord]:
        return await self._state.run(partial(records.newest, limit=limit, before=before, plans=plans))

    async def page_of_records(
        self, *, limit: int = 50, before: int | None = None, states: Collection[str] = ()
    ) -> Sequence[tuple[int, RevisionRecord]]:
        return await self._state.run(partial(records.page, limit=limit, before=before, states=states))

    async def prune_records(self, keep: int) -> int:
        """Forget all but the newest ``keep`` records; return how many."""
        return await self._state.run(partial(records.prune, keep=keep), Mode.WRITE)

    # --- ObservationStore ---

    async def save_observations(self, observations: Sequence[AgentObservation]) -> None:
        self._seen.update((seen.name, seen) for seen in observations)
        if self._seen and (self._writer is None or self._writer.done()):
            self._writer = asyncio.create_task(self._write_later(), name="store-observations")

    async def observations(self) -> Sequence[AgentObservation]:
        written = await self._state.run(observations.every)
        newest = {seen.name: seen for seen in written} | self._seen
        return tuple(newest[name] for name in sorted(newest))

    async def forget_agent(self, name: str) -> None:
        self._seen.pop(name, None)
        await self._state.run(partial(observations.forget, name=name), Mode.WRITE)

    async def _write_later(self) -> None:
        while self._seen:
            await asyncio.sleep(self._interval)
            await self._write_observations()

    async def _write_observations(self) -> None:
        batch = dict(self._seen)
        try:
            await self._state.run(partial(observations.save, observations=batch.values()), Mode.WRITE)
        except CloudLunacyError as error:
            log.warning("observations of %d agents are kept in memory for now: %s", len(batch), error)
            return
        for name, seen in batch.items():
            if self._seen.get(name) is seen:
                del self._seen[name]

    # --- EventStore ---

    async def append(self, event: Event) -> Event:
        """Durable. ``on_event`` hears of it afterwards."""
        stored = await self._state.run(partial(events.append, event=event), Mode.DURABLE)
        self.on_event(stored)
        return stored

    async def events(
        self,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
        subject: str | None = None,
        wanted: EventFilter = ANY_EVENT,
    ) -> Sequence[Event]:
        """Return what lies between two events and is wanted, oldest first unless said otherwise."""
        job = partial(
            events.select,
            after=after,
            before=before,
            limit=limit,
            newest_first=newest_first,
            subject=subject,
            wanted=wanted,
        )
        return await self._state.run(job)

    async def prune_events(self, *, keep: int, before: float) -> int:
        """Forget events older than ``before`` and all but the newest ``keep``; return how many."""
        return await self._state.run(partial(events.prune, keep=keep, before=before), Mode.WRITE)
