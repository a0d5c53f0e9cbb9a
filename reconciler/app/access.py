"""What is built for letting in and locking out, and what the other parts tell it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from reconciler.agents.enrolment import compose
from reconciler.agents.group_commit import Job
from reconciler.agents.revocation import compose_revocation
from reconciler.convergence import Record, judge
from reconciler.store.protocols import OutboxEntry
from schemas.plan import Plan

_COMPOSERS: Final = {"enrolment": compose, "revocation": compose_revocation}


def composer(branch: str) -> Callable[[OutboxEntry], Job]:
    """Return what turns an entry of the outbox into its commit."""
    return partial(_compose, branch=branch)


def _compose(entry: OutboxEntry, *, branch: str) -> Job:
    return _COMPOSERS[entry.kind](entry, branch=branch)


def guarded(record: Record) -> Plan | None:
    """Return the plan that the deletion guard holds; None where it holds none."""
    return record.plan if judge(record)[:2] == ("Held", "DeletionGuard") else None
