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
TRIED_AGAIN = frozenset({"PreflightFailed", "ReadBackFailed"})
"""Reasons of Traefik's to hold a revision: a person who approves its plan has it tried once more."""


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
    approve: str = ""
    """What a person has to approve, while it is held and since it was held last."""
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
    if missing:
        return "Progressing", "WaitingApplied", "not yet applied"
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
        approve=record.approve if state == "Held" else "",
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
        self._listeners: set[asyncio.Queue[RevisionStatus | None]] = set()
        self.newest = ""
        """Revision that the branch was last seen at."""
        self.on_state: Callable[[Record, RevisionState], None] = lambda _, __: None
        """Called when a record's state becomes another one."""

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
        record = self._get(revision)
        open_states = {"pending", "progressing", "failed"}
        if "pushed" not in record.stages or "applied" in record.stages:
            return
        if not any(one.state in open_states for one in record.agents.values()):
            self.reach(revision, "applied")

    # --- reading ------------------------------------------------------------------------------------------------

    async def load(self, digests: Mapping[str, str]) -> None:
        """After a restart: take up the newest records that are not done. ``digests``: agent → its document now."""
        for stored in reversed(await self._store.records(limit=KEPT)):
            if stored.state not in ("Converged", "Superseded") and stored.revision not in self._records:
                self._records[stored.revision] = _taken_up(stored, digests)

    async def known(self, revision: str) -> bool:
        """Say whether there is a record, in memory or stored."""
        return revision in self._records or await self._store.record(revision) is not None

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
        return [from_store(one) for one in await self._store.records(limit=limit, before=before)]

    # --- telling ------------------------------------------------------------------------------------------------

    def listen(self) -> asyncio.Queue[RevisionStatus | None] | None:
        """Return a queue that gets every change, None when too many listen. Slow listeners lose the oldest.

        None in the queue means that no more will come.
        """
        if len(self._listeners) >= MAX_LISTENERS:
            return None
        queue: asyncio.Queue[RevisionStatus | None] = asyncio.Queue(maxsize=100)
        self._listeners.add(queue)
        return queue

    def unlisten(self, queue: asyncio.Queue[RevisionStatus | None]) -> None:
        self._listeners.discard(queue)

    def close(self) -> None:
        """Send every listener home."""
        for queue in self._listeners:
            _offer(queue, None)

    def _put(self, record: Record) -> None:
        former = self._records.get(record.revision)
        if former == record:
            return
        state = judge(record)[0]
        if former is None or judge(former)[0] != state:
            self.on_state(record, state)
        self._records[record.revision] = record
        self._dirty[record.revision] = None
        if self._listeners:
            status = to_status(record)
            for queue in self._listeners:
                _offer(queue, status)

    async def flush(self) -> None:
        """Write what changed to the store.

        Raises:
            Transient, Broken: what is not written then is written the next time.
        """
        self._let_go()
        for revision in list(self._dirty):
            record = self._records.get(revision)
            self._dirty.pop(revision)
            if record is None:
                continue
            try:
                await self._store.save_record(to_store(record, self._clock()))
            except BaseException:
                self._dirty[revision] = None
                raise
        for revision in list(self._records)[:-KEPT]:
            if revision not in self._dirty:
                del self._records[revision]

    def _let_go(self) -> None:
        """Nobody follows the oldest records any more: what they wait for has had its time."""
        for revision in list(self._records)[:-KEPT]:
            if judge(self._records[revision])[0] not in ("Converged", "Superseded"):
                self.supersede(revision, self.newest)


def _offer(queue: asyncio.Queue[RevisionStatus | None], status: RevisionStatus | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(status)


def _only_agents_are_missing(record: Record) -> bool:
    return record.stopped is None and "loaded" in record.stages and "pushed" in record.stages


def _taken_up(stored: RevisionRecord, digests: Mapping[str, str]) -> Record:
    status = from_store(stored)
    derived = stored.state == "Progressing" or stored.reason == "AgentFailed"
    return Record(
        revision=stored.revision,
        commit=status.commit,
        generation=stored.generation,
        stages={stage: stored.stages[stage] for stage in STAGES if stage in stored.stages},
        agents=status.agents,
        wanted={name: digests[name] for name in status.agents if name in digests},
        quarantined=status.quarantined,
        plan=Plan.model_validate(stored.plan) if stored.plan else None,
        stopped=None if derived else (stored.state, stored.reason, stored.message),
        approve=status.approve,
    )


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
        commit=record.commit.model_dump(mode="json", by_alias=True)
        | {"supersededBy": record.superseded_by, "approve": record.approve},
        # the order of records is the order in which revisions came, not the one in which their agents followed
        updated_at=record.stages.get("fetched", now),
    )


def from_store(stored: RevisionRecord) -> RevisionStatus:
    commit = dict(stored.commit)
    superseded_by, approve = str(commit.pop("supersededBy", "")), str(commit.pop("approve", ""))
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
        approve=approve if stored.state == "Held" else "",
        superseded_by=superseded_by,
        commit=CommitSummary.model_validate(commit),
    )
