"""A convergence record: for one revision when each stage was reached, by whom, and what that means.

PURE. The state of a revision is judged in one place, :func:`judge`; the other functions turn a record into what the API
shows and what the store keeps, and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from reconciler.store.protocols import RevisionRecord
from schemas.plan import Plan
from schemas.problem import Problem
from schemas.session import UNSUPPORTED
from schemas.status import (
    STAGES,
    AgentProgress,
    CommitSummary,
    DeploymentRollout,
    RevisionState,
    RevisionStatus,
    RolloutState,
    Stage,
)


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
    rollouts: Mapping[str, DeploymentRollout] = field(default_factory=dict)
    """Deployment that this revision changes, as ``team/name`` → how far it is."""
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
    if failing := _rollouts(record, "Failed"):
        return "Failed", "AgentFailed", failing
    failed = sorted(name for name, one in record.agents.items() if one.state == "failed")
    if failed:
        first = record.agents[failed[0]]
        return "Failed", "AgentFailed", f"{', '.join(failed)} could not apply it: {first.message or first.reason}"
    if paused := _rollouts(record, "Paused"):
        return "Progressing", "Paused", paused
    if changing := _rollouts(record, "Progressing"):
        return "Progressing", "WaitingAgents", changing
    open_agents = sorted(name for name, one in record.agents.items() if one.state in ("pending", "progressing"))
    if open_agents:
        return "Progressing", "WaitingAgents", f"waiting for {_some(open_agents)} to apply it"
    if missing:
        return "Progressing", "WaitingApplied", "not yet applied"
    offline = sum(one.state == "offline" for one in record.agents.values())
    said = [f"{len(record.quarantined)} problem(s), see quarantined"] if record.quarantined else []
    said += [f"{offline} agent(s) offline"] if offline else []
    idle = sorted(name for name, one in record.agents.items() if one.state == "applied" and one.reason == UNSUPPORTED)
    said += [f"{_some(idle)} cannot run all of it: {record.agents[idle[0]].message}"] if idle else []
    return "Converged", "Quarantined" if record.quarantined else "AllStagesReached", "; ".join(said)


def _rollouts(record: Record, state: RolloutState) -> str:
    """Say which roll-outs are in a state; empty where none is."""
    found = sorted(name for name, one in record.rollouts.items() if one.state == state)
    if not found:
        return ""
    more = f" (and {len(found) - 1} more deployment(s))" if len(found) > 1 else ""
    return f"{found[0]}: {record.rollouts[found[0]].message}{more}"


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
        stages={stage: time_of(record.stages.get(stage)) for stage in STAGES},
        agents=dict(record.agents),
        rollouts=dict(record.rollouts),
        quarantined=record.quarantined,
        plan_checksum=record.plan.checksum if record.plan else "",
        approve=record.approve if state == "Held" else "",
        superseded_by=record.superseded_by,
        commit=record.commit,
    )


def time_of(moment: float | None) -> datetime | None:
    """Return POSIX seconds as the API writes a time."""
    return None if moment is None else datetime.fromtimestamp(moment, UTC)


def taken_up(stored: RevisionRecord, digests: Mapping[str, str]) -> Record:
    """Return the record to go on with after a restart. ``digests``: agent → digest of its document now."""
    status = from_store(stored)
    derived = stored.state in ("Progressing", "Converged") or stored.reason == "AgentFailed"
    return Record(
        revision=stored.revision,
        commit=status.commit,
        generation=stored.generation,
        stages={stage: stored.stages[stage] for stage in STAGES if stage in stored.stages},
        agents=status.agents,
        wanted={name: digests[name] for name in status.agents if name in digests},
        rollouts=status.rollouts,
        quarantined=status.quarantined,
        plan=Plan.model_validate(stored.plan) if stored.plan else None,
        stopped=None if derived else (stored.state, stored.reason, stored.message),
        approve=status.approve,
    )


def plan_to_store(record: Record) -> Mapping[str, Any] | None:
    """Return what the store keeps of the plan."""
    return record.plan.model_dump(mode="json", by_alias=True) if record.plan else None


def to_store(record: Record, now: float, plan: Mapping[str, Any] | None) -> RevisionRecord:
    """Return what the store keeps, with the plan of :func:`plan_to_store`.

    ``now`` (POSIX seconds) counts where the revision was never fetched.
    """
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
        plan=plan,
        commit=record.commit.model_dump(mode="json", by_alias=True)
        | {"supersededBy": record.superseded_by, "approve": record.approve},
        # the order of records is the order in which revisions came, not the one in which their agents followed
        updated_at=record.stages.get("fetched", now),
        rollouts={name: one.model_dump(mode="json", by_alias=True) for name, one in record.rollouts.items()},
    )


def from_store(stored: RevisionRecord) -> RevisionStatus:
    """Return what the API shows of a record that is not in memory any more."""
    commit = dict(stored.commit)
    superseded_by, approve = str(commit.pop("supersededBy", "")), str(commit.pop("approve", ""))
    return RevisionStatus(
        revision=stored.revision,
        generation=stored.generation,
        state=stored.state,
        reason=stored.reason,
        message=stored.message,
        stages={stage: time_of(stored.stages.get(stage)) for stage in STAGES},
        agents={
            name: AgentProgress.model_validate({"state": state, "applied": time_of(applied)})
            for name, (state, applied) in stored.agents.items()
        },
        rollouts={name: DeploymentRollout.model_validate(one) for name, one in stored.rollouts.items()},
        quarantined=tuple(stored.quarantined),
        plan_checksum=str((stored.plan or {}).get("checksum", "")),
        approve=approve if stored.state == "Held" else "",
        superseded_by=superseded_by,
        commit=CommitSummary.model_validate(commit),
    )
