"""The tracker of convergence records.

Steps of the loop report what happened; :mod:`reconciler.convergence` judges what that means. Records are kept in memory
while they move, written to the store when they change, and told to whoever listens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from reconciler.convergence import Record, from_store, judge, plan_to_store, taken_up, time_of, to_status, to_store
from reconciler.store.protocols import RecordStore, RevisionRecord
from schemas.plan import Plan
from schemas.status import AgentProgress, DeploymentRollout, RevisionState, RevisionStatus, Stage

KEPT = 64
TRIED_AGAIN = frozenset({"PreflightFailed", "ReadBackFailed"})
"""Reasons of Traefik's to hold a revision: a person who approves its plan has it tried once more."""


class Tracker:
    """Owns every record that still moves; all calls come from the event loop's thread."""

    def __init__(self, store: RecordStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._dirty: dict[str, None] = {}
        self._applied: dict[str, str] = {}
        """Agent → digest of the document that it said it has applied last."""
        self._written: tuple[Plan | None, Mapping[str, Any] | None] = (None, None)
        """The plan that was made ready for the store last, and what it is there."""
        self._present: set[str] = set()
        """Agents that are connected."""
        self.newest = ""
        """Revision that the branch was last seen at."""
        self.on_state: Callable[[Record, RevisionState], None] = lambda _, __: None
        """Called when a record's state becomes another one."""
        self.on_change: Callable[[Record], None] = lambda _: None
        """Called with every change of a record; it must be quick."""

    # --- what the loop reports ----------------------------------------------------------------------------------

    def begin(self, revision: str) -> None:
        """Start the record of a revision, or take it up again: stages that were reached stay reached."""
        self.newest = revision
        record = self._records.pop(revision, None) or Record(revision)
        self._put(replace(record, stopped=None, waiting=("", ""), superseded_by=""))

    def reach(self, revision: str, *stages: Stage) -> None:
        """Note that stages were reached now. A stage keeps the time at which it was reached first."""
        record = self._get(revision)
        now = self._clock()
        reached = dict.fromkeys(stages, now) | dict(record.stages)
        self._put(replace(record, stages=reached))

    def note(self, revision: str, **what: Any) -> None:  # noqa: ANN401 - fields of Record
        """Set fields of the record, such as ``plan``, ``generation`` or ``quarantined``."""
        self._put(replace(self._get(revision), **what))

    def stop(self, revision: str, state: RevisionState, reason: str, message: str, *, approve: str = "") -> None:
        """End the way of a revision short of convergence. ``approve``: what a person can approve to let it go on."""
        record = self._get(revision)
        if reason in TRIED_AGAIN and record.plan is not None:
            approve = record.plan.checksum
        self._put(replace(record, stopped=(state, reason, message), waiting=("", ""), approve=approve))

    def wait(self, revision: str, reason: str, message: str) -> None:
        """Say what the revision waits for; the next attempt clears it."""
        self._put(replace(self._get(revision), waiting=(reason, message)))

    @property
    def awaited(self) -> str:
        """What a person can approve now, empty where nothing waits for that.

        Only the newest revision waits, also while a pass looks at it again.
        """
        record = self._records.get(self.newest)
        waits = record is not None and judge(record)[0] in ("Held", "Progressing")
        return record.approve if record is not None and waits else ""

    def open(self) -> tuple[Record, ...]:
        """Return the records that another revision can end: not yet in service with only agents to wait for."""
        return tuple(
            record
            for record in self._records.values()
            if judge(record)[0] not in ("Converged", "Superseded") and not _only_agents_are_missing(record)
        )

    def supersede(self, revision: str, newer: str, *, part: bool = True) -> None:
        """Mark a revision as overtaken by a newer one. ``part``: its changes are in the newer one.

        What was said about the revision before is kept in the message, because somebody may still ask why.
        """
        record = self._get(revision)
        reason = "NewerRevision" if part else "NotOnBranch"
        text = f"{newer[:12]} came before it was done; its changes are part of that revision"
        if not part:
            text = f"the branch does not have it any more; {newer[:12]} is in service"
        if record.stopped is not None:
            text += f". It was {record.stopped[0]}, {record.stopped[1]}: {record.stopped[2]}"
        superseded_by = newer if part else ""
        self._put(replace(record, stopped=("Superseded", reason, text), superseded_by=superseded_by))

    def _get(self, revision: str) -> Record:
        return self._records.get(revision) or Record(revision)

    # --- what agents report -------------------------------------------------------------------------------------

    def concern(self, revision: str, wanted: Mapping[str, str], connected: Iterable[str]) -> None:
        """Note which agents must apply which document, by digest; those that are not connected are offline.

        An agent that has the same content from an older generation is sent nothing, and is done.
        """
        present = set(connected)
        record = self._get(revision)
        every = self._replaced(revision, wanted) | dict(wanted)
        agents = {name: self._progress(name, digest, present) for name, digest in every.items()}
        kept = {name: one for name, one in record.agents.items() if one.state == "applied" and name in agents}
        self._put(replace(record, wanted=every, agents=agents | (kept if record.wanted in ({}, every) else {})))
        self._check_applied(revision)

    def _replaced(self, revision: str, wanted: Mapping[str, str]) -> dict[str, str]:
        """Supersede revisions whose documents the ``wanted`` ones replace; return what else those wait for."""
        rest: dict[str, str] = {}
        for other in list(self._records.values()):
            waits = {name for name, one in other.agents.items() if one.state != "applied"} & other.wanted.keys()
            is_other = other.revision != revision and other.stopped is None
            if is_other and any(wanted.get(name, other.wanted[name]) != other.wanted[name] for name in waits):
                rest |= {name: other.wanted[name] for name in waits}
                self.supersede(other.revision, revision)
        return rest

    def _progress(self, name: str, digest: str, present: set[str]) -> AgentProgress:
        if name not in present:
            return AgentProgress(state="offline")
        if self._applied.get(name) == digest:
            return AgentProgress(state="applied", applied=time_of(self._clock()))
        return AgentProgress(state="pending")

    def documents_again(self, documents: Mapping[str, str], concerned: Mapping[str, Collection[str]]) -> None:
        """Note documents that came without a commit: whoever waits for the former one waits for these.

        ``documents``: agent → digest. ``concerned``: revision → agents that got its next part with them.
        """
        for revision, record in list(self._records.items()):
            if record.stopped is not None:
                continue
            news = {
                name: digest
                for name, digest in documents.items()
                if name in concerned.get(revision, ())
                or (name in record.wanted and record.agents[name].state != "applied")
            }
            agents = {name: self._progress(name, digest, self._present) for name, digest in news.items()}
            self._put(replace(record, wanted={**record.wanted, **news}, agents={**record.agents, **agents}))
            self._check_applied(revision)

    # --- roll-outs ----------------------------------------------------------------------------------------------

    def roll_out(self, revision: str, rollouts: Mapping[str, DeploymentRollout]) -> None:
        """Note how far the deployments are that a revision changes. Nothing happens where nobody follows it."""
        record = self._records.get(revision)
        if record is None or record.stopped is not None or record.rollouts == rollouts:
            return
        self._put(replace(record, rollouts=dict(rollouts)))
        self._check_applied(revision)

    def rolling_out(self) -> tuple[Record, ...]:
        """Return the records that a deployment keeps from being done."""
        return tuple(
            record
            for record in self._records.values()
            if record.stopped is None and any(one.state != "Done" for one in record.rollouts.values())
        )

    def successor(self, revision: str) -> str:
        """Return the revision whose record has taken over from this one, by now; mostly itself."""
        seen = {revision}
        while (record := self._records.get(revision)) is not None and record.superseded_by not in {"", *seen}:
            revision = record.superseded_by
            seen.add(revision)
        return revision

    def agent_progress(self, name: str, digest: str | None, progress: AgentProgress) -> None:
        """Note how far an agent is with a document, in every record that waits for it.

        ``digest`` is None where the agent could not tell which document it refuses: that concerns whatever it was sent.
        """
        if progress.state == "applied" and digest is not None:
            self._applied[name] = digest
        for revision, record in list(self._records.items()):
            wanted = record.wanted.get(name)
            if wanted is None or digest not in (None, wanted) or record.stopped is not None:
                continue
            if record.agents[name].state == "applied":
                continue
            self._put(replace(record, agents={**record.agents, name: progress}))
            self._check_applied(revision)

    def agent_presence(self, name: str, *, connected: bool) -> None:
        """Note that an agent came or went; one that is away holds nothing up."""
        (self._present.add if connected else self._present.discard)(name)
        now = AgentProgress(state="pending" if connected else "offline")
        for revision, record in list(self._records.items()):
            known = record.agents.get(name)
            if known is not None and known.state in ("pending", "progressing", "offline"):
                self._put(replace(record, agents={**record.agents, name: now}))
                self._check_applied(revision)

    def _check_applied(self, revision: str) -> None:
        record = self._get(revision)
        open_states = {"pending", "progressing", "failed"}
        if "pushed" not in record.stages or "applied" in record.stages:
            return
        if any(one.state != "Done" for one in record.rollouts.values()):
            return
        if not any(one.state in open_states for one in record.agents.values()):
            self.reach(revision, "applied")

    # --- reading ------------------------------------------------------------------------------------------------

    async def load(self, digests: Mapping[str, str], in_service: str = "") -> None:
        """After a restart: take up the newest records that are not done, and that of the revision ``in_service``, which
        may be published again. ``digests``: agent → its document now.
        """
        for stored in reversed(await self._store.records(limit=KEPT)):
            if stored.state not in ("Converged", "Superseded") and stored.revision not in self._records:
                self._records[stored.revision] = taken_up(stored, digests)
        found = await self._store.record(in_service) if in_service and in_service not in self._records else None
        if found is not None and found.state == "Converged":
            self._records[in_service] = taken_up(found, digests)

    async def known(self, revision: str) -> bool:
        """Say whether there is a record, in memory or stored."""
        return revision in self._records or await self._store.record(revision) is not None

    async def is_done(self, revision: str) -> bool:
        """Say whether a revision has converged, or was superseded before a restart."""
        record = self._records.get(revision)
        return await self.known(revision) if record is None else judge(record)[0] == "Converged"

    def get(self, revision: str) -> Record | None:
        return self._records.get(revision)

    async def status(self, revision: str) -> RevisionStatus | None:
        """Return the status of a revision, given in full or by at least seven digits."""
        found = [record for name, record in self._records.items() if name.startswith(revision)]
        if len(found) == 1:
            return to_status(found[0])
        stored = await self._store.record(revision)
        return None if stored is None else from_store(stored)

    async def newest_status(self) -> RevisionStatus | None:
        """Return the status of the revision that the branch was last seen at."""
        if self.newest and (found := await self.status(self.newest)) is not None:
            return found
        return next(iter(await self.statuses(limit=1)), None)

    async def statuses(self, *, limit: int = 50, before: float | None = None) -> list[RevisionStatus]:
        await self.flush()
        found = await self._store.records(limit=limit, before=before, plans=False)
        return [self._status_of(one) for one in found]

    async def page(
        self, *, limit: int, before: int | None = None, states: Collection[str] = ()
    ) -> list[tuple[int, RevisionStatus]]:
        """Return statuses in the order in which the revisions were first looked at, newest first, with their places."""
        await self.flush()
        found = await self._store.page_of_records(limit=limit, before=before, states=states)
        return [(place, self._status_of(one)) for place, one in found]

    def _status_of(self, stored: RevisionRecord) -> RevisionStatus:
        """Return a status; what is in memory needs not be made of thousands of agents once more."""
        record = self._records.get(stored.revision)
        return from_store(stored) if record is None else to_status(record)

    # --- keeping --------------------------------------------------------------------------------------------------

    def _put(self, record: Record) -> None:
        former = self._records.get(record.revision)
        if former == record:
            return
        state = judge(record)[0]
        if former is None or judge(former)[0] != state:
            self.on_state(record, state)
        self._records[record.revision] = record
        self._dirty[record.revision] = None
        self.on_change(record)

    async def flush(self) -> None:
        """Write what changed to the store.

        Raises:
            Transient, Broken: what is not written then is written the next time.
        """
        self._let_go()
        for revision in list(self._dirty):
            record = self._records.get(revision)
            if revision not in self._dirty:  # another task's call took it meanwhile
                continue
            self._dirty.pop(revision)
            if record is None:
                continue
            try:
                await self._store.save_record(to_store(record, self._clock(), self._plan_of(record)))
            except BaseException:
                self._dirty[revision] = None
                raise
        for revision in list(self._records)[:-KEPT]:
            if revision not in self._dirty:
                del self._records[revision]

    def _plan_of(self, record: Record) -> Mapping[str, Any] | None:
        """Return the plan as the store keeps it; it is made once while its agents follow, however long that takes."""
        if self._written[0] is not record.plan:
            self._written = (record.plan, plan_to_store(record))
        return self._written[1]

    def _let_go(self) -> None:
        """Nobody follows the oldest records any more: what they wait for has had its time."""
        for revision in list(self._records)[:-KEPT]:
            if judge(self._records[revision])[0] not in ("Converged", "Superseded"):
                self.supersede(revision, self.newest)


def _only_agents_are_missing(record: Record) -> bool:
    return record.stopped is None and "loaded" in record.stages and "pushed" in record.stages
