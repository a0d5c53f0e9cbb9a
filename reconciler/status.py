"""Convergence records: for each revision when each stage was reached, and what that means.

Steps of the loop report what happened; the state of a revision is judged in one place, :func:`judge`. Records are kept
in memory while they move, written to the store when they change, and told to whoever listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from reconciler.store.protocols import RecordStore, RevisionRecord
from schemas.plan import Plan
from schemas.problem import Problem
from schemas.status import STAGES, AgentProgress, CommitSummary, RevisionState, RevisionStatus, Stage

MAX_LISTENERS = 256
KEPT = 64


@dataclass(frozen=True, slots=True)
class Record:
    """One revision, immutable; the tracker replaces it. Times are POSIX seconds."""

    revision: str
    commit: CommitSummary = field(default_factory=CommitSummary)
    generation: int | None = None
    stages: Mapping[Stage, float] = field(default_factory=dict)
    agents: Mapping[str, AgentProgress] = field(default_factory=dict)
    wanted: Mapping[str, str] = field(default_factory=dict)
    """Concerned agent → digest of its document in this revision."""
    quarantined: tuple[Problem, ...] = ()
    plan: Plan | None = None
    stopped: tuple[RevisionState, str, str] | None = None
    """State, reason and message where the way ended before it was done."""
    waiting: tuple[str, str] = ("", "")
    """Reason and message of what the revision waits for."""
    superseded_by: str = ""


def judge(record: Record) -> tuple[RevisionState, str, str]:
    """Decide state, reason and message of a record from what was reached."""
    if record.stopped is not None:
        return record.stopped
    missing = [stage for stage in STAGES if stage not in record.stages]
    if record.waiting[0]:
        return "Progressing", *record.waiting
    if missing and missing[0] != "applied":
        return "Progressing", f"Waiting{missing[0].capitalize()}", f"not yet {missing[0]}"
    failed = sorted(name for name, one in record.agents.items() if one.state == "failed")
    if failed:
        first = record.agents[failed[0]]
        return "Failed", "AgentFailed", f"{', '.join(failed)} could not apply it: {first.message or first.reason}"
    open_agents = sorted(name for name, one in record.agents.items() if one.state in ("pending", "progressing"))
    if open_agents:
        return "Progressing", "WaitingAgents", f"waiting for {_some(open_agents)} to apply it"
    offline = sum(one.state == "offline" for one in record.agents.values())
    said = [f"{len(record.quarantined)} problem(s), see quarantined"] if record.quarantined else []
    said += [f"{offline} agent(s) offline"] if offline else []
    return "Converged", "Quarantined" if record.quarantined else "AllStagesReached", "; ".join(said)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def to_status(record: Record) -> RevisionStatus:
    """Return what the API shows."""
    state, reason, message = judge(record)
    return RevisionStatus(
        revision=record.revision,
        generation=record.generation,
        state=state,
        reason=reason,
        message=message,
        stages={stage: _time(record.stages.get(stage)) for stage in STAGES},
        agents=dict(record.agents),
        quarantined=record.quarantined,
        plan_checksum=record.plan.checksum if record.plan else "",
        superseded_by=record.superseded_by,
        commit=record.commit,
    )


def _time(moment: float | None) -> datetime | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC)


class Tracker:
    """Owns every record that still moves; all calls come from the event loop's thread."""

    def __init__(self, store: RecordStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._dirty: dict[str, None] = {}
        self._applied: dict[str, str] = {}
        """Agent → digest of the document that it said it has applied last."""
        self._listeners: set[asyncio.Queue[RevisionStatus]] = set()
        self.on_converged: Callable[[Record], None] = lambda _: None

    # --- what the loop reports ----------------------------------------------------------------------------------

    def begin(self, revision: str, commit: CommitSummary) -> None:
        """Start the record of a revision, or take it up again: stages that were reached stay reached."""
        record = self._records.pop(revision, None) or Record(revision)
        self._put(replace(record, commit=commit, stopped=None, waiting=("", "")))

    def reach(self, revision: str, *stages: Stage) -> None:
        """Note that stages were reached now. A stage keeps the time at which it was reached first."""
        record = self._records[revision]
        now = self._clock()
        reached = dict.fromkeys(stages, now) | dict(record.stages)
        self._put(replace(record, stages=reached))

    def note(self, revision: str, **what: Any) -> None:  # noqa: ANN401 - fields of Record
        """Set fields of the record, such as ``plan``, ``generation`` or ``quarantined``."""
        self._put(replace(self._records[revision], **what))

    def stop(self, revision: str, state: RevisionState, reason: str, message: str) -> None:
        """End the way of a revision short of convergence."""
        self._put(replace(self._records[revision], stopped=(state, reason, message), waiting=("", "")))

    def wait(self, revision: str, reason: str, message: str) -> None:
        """Say what the revision waits for; the next attempt clears it."""
        self._put(replace(self._records[revision], waiting=(reason, message)))

    def supersede(self, newer: str, revisions: Iterable[str] = ()) -> None:
        """Mark every moving or given revision but ``newer`` as overtaken by it."""
        for revision in {*revisions, *self._records} - {newer}:
            record = self._records.get(revision) or Record(revision)
            if judge(record)[0] == "Converged":
                continue
            text = f"{newer[:12]} came before it was done; its changes are part of that revision"
            stopped: tuple[RevisionState, str, str] = ("Superseded", "NewerRevision", text)
            self._put(replace(record, stopped=stopped, superseded_by=newer))

    # --- what agents report -------------------------------------------------------------------------------------

    def concern(self, revision: str, wanted: Mapping[str, str], connected: Iterable[str]) -> None:
        """Note which agents must apply which document, by digest; those that are not connected are offline.

        An agent that has the same content from an older generation is sent nothing, and is done.
        """
        present = set(connected)
        agents = {name: self._progress(name, digest, present) for name, digest in wanted.items()}
        self._put(replace(self._records[revision], wanted=dict(wanted), agents=agents))
        self._check_applied(revision)

    def _progress(self, name: str, digest: str, present: set[str]) -> AgentProgress:
        if name not in present:
            return AgentProgress(state="offline")
        if self._applied.get(name) == digest:
            return AgentProgress(state="applied", applied=_time(self._clock()))
        return AgentProgress(state="pending")

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
        now = AgentProgress(state="pending" if connected else "offline")
        for revision, record in list(self._records.items()):
            known = record.agents.get(name)
            if known is not None and known.state in ("pending", "progressing", "offline"):
                self._put(replace(record, agents={**record.agents, name: now}))
                self._check_applied(revision)

    def _check_applied(self, revision: str) -> None:
        record = self._records[revision]
        open_states = {"pending", "progressing", "failed"}
        if "pushed" not in record.stages or "applied" in record.stages:
            return
        if not any(one.state in open_states for one in record.agents.values()):
            self.reach(revision, "applied")
            self.on_converged(self._records[revision])

    # --- reading ------------------------------------------------------------------------------------------------

    def moving(self) -> tuple[Record, ...]:
        """Return the records in memory, oldest first."""
        return tuple(self._records.values())

    def get(self, revision: str) -> Record | None:
        return self._records.get(revision)

    async def status(self, revision: str) -> RevisionStatus | None:
        """Return the status of a revision, given in full or by at least seven digits."""
        found = [record for name, record in self._records.items() if name.startswith(revision)]
        if len(found) == 1:
            return to_status(found[0])
        stored = await self._store.record(revision)
        return None if stored is None else from_store(stored)

    async def statuses(self, *, limit: int = 50, before: float | None = None) -> list[RevisionStatus]:
        await self.flush()
        return [from_store(one) for one in await self._store.records(limit=limit, before=before)]

    # --- telling ------------------------------------------------------------------------------------------------

    def listen(self) -> asyncio.Queue[RevisionStatus] | None:
        """Return a queue that gets every change, None when too many listen. Slow listeners lose the oldest."""
        if len(self._listeners) >= MAX_LISTENERS:
            return None
        queue: asyncio.Queue[RevisionStatus] = asyncio.Queue(maxsize=100)
        self._listeners.add(queue)
        return queue

    def unlisten(self, queue: asyncio.Queue[RevisionStatus]) -> None:
        self._listeners.discard(queue)

    def _put(self, record: Record) -> None:
        if self._records.get(record.revision) == record:
            return
        self._records[record.revision] = record
        self._dirty[record.revision] = None
        if self._listeners:
            status = to_status(record)
            for queue in self._listeners:
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(status)

    async def flush(self) -> None:
        """Write what changed to the store."""
        dirty, self._dirty = self._dirty, {}
        for revision in dirty:
            if (record := self._records.get(revision)) is not None:
                await self._store.save_record(to_store(record, self._clock()))
        for revision in list(self._records)[:-KEPT]:
            if revision not in self._dirty:
                del self._records[revision]


def to_store(record: Record, now: float) -> RevisionRecord:
    state, reason, message = judge(record)
    return RevisionRecord(
        revision=record.revision,
        generation=record.generation,
        state=state,
        reason=reason,
        message=message,
        stages={str(stage): moment for stage, moment in record.stages.items()},
        agents={
            name: (one.state, one.applied.timestamp() if one.applied else None) for name, one in record.agents.items()
        },
        quarantined=record.quarantined,
        plan=record.plan.model_dump(mode="json", by_alias=True) if record.plan else None,
        commit=record.commit.model_dump(mode="json", by_alias=True) | {"supersededBy": record.superseded_by},
        # the order of records is the order in which revisions came, not the one in which their agents followed
        updated_at=record.stages.get("fetched", now),
    )


def from_store(stored: RevisionRecord) -> RevisionStatus:
    commit = dict(stored.commit)
    superseded_by = str(commit.pop("supersededBy", ""))
    return RevisionStatus(
        revision=stored.revision,
        generation=stored.generation,
        state=stored.state,
        reason=stored.reason,
        message=stored.message,
        stages={stage: _time(stored.stages.get(stage)) for stage in STAGES},
        agents={
            name: AgentProgress.model_validate({"state": state, "applied": _time(applied)})
            for name, (state, applied) in stored.agents.items()
        },
        quarantined=tuple(stored.quarantined),
        plan_checksum=str((stored.plan or {}).get("checksum", "")),
        superseded_by=superseded_by,
        commit=CommitSummary.model_validate(commit),
    )
