"""A convergence record as spans of one trace. PURE: times and names, no SDK.

The trace's identifier is made of the revision, and a span's of the revision and its place, so that a reader finds the
trace by the commit (W3C Trace Context: 16 and 8 bytes, not all zero).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from schemas.status import STAGES, RevisionStatus

MOST_AGENTS: Final = 100
"""Of which a trace has spans; the slowest are taken."""
DECIDED: Final = frozenset({"Converged", "Held", "Failed", "Superseded"})

Value = str | int


@dataclass(frozen=True, slots=True)
class Span:
    """Times are POSIX seconds, ``end`` never before ``begin``; ``span`` and ``parent`` are eight bytes as a number."""

    name: str
    span: int
    parent: int | None
    begin: float
    end: float
    attributes: Mapping[str, Value] = field(default_factory=dict)
    error: str | None = None
    """Why it did not go on; None where it did."""


def trace_of(revision: str) -> int:
    """Return the identifier of a revision's trace: its first 32 digits as a number."""
    try:
        found = int(revision[:32], 16)
    except ValueError:
        found = 0
    return found or int.from_bytes(hashlib.sha256(revision.encode()).digest()[:16], "big")


def root_of(revision: str, number: int) -> int:
    """Return the identifier of the ``number``-th root span of a revision's trace."""
    return _span(revision, "root", str(number))


def spans_of(status: RevisionStatus, now: float, number: int = 0) -> tuple[Span, ...]:
    """Return the spans of a revision that was decided at ``now`` (POSIX seconds), the root first.

    ``number``: how often it was decided before. A stage's span begins where the one before it ended, because a record
    says when a stage was reached and no more. A clock that was set back makes spans of no length.
    """
    revision = status.revision
    reached = [(stage, moment.timestamp()) for stage in STAGES if (moment := status.stages.get(stage)) is not None]
    begin = reached[0][1] if reached else now
    last = max((moment for _, moment in reached), default=now)
    end = max(begin, last if status.state == "Converged" else max(last, now))
    root = root_of(revision, number)
    stages, former = list[Span](), begin
    for stage, at in reached:
        until = max(former, at)
        stages.append(Span(stage, _span(revision, number, stage), root, former, until))
        former = until
    agents, left_out = _agents(status, number, stages)
    attributes: dict[str, Value] = {
        "cloudlunacy.revision": revision,
        "cloudlunacy.state": status.state,
        "cloudlunacy.reason": status.reason,
        "cloudlunacy.quarantined": len(status.quarantined),
        "cloudlunacy.agents": len(status.agents),
    }
    if status.generation is not None:
        attributes["cloudlunacy.generation"] = status.generation
    if left_out:
        attributes["cloudlunacy.agents_left_out"] = left_out
    error = f"{status.reason}: {status.message}" if status.state in ("Held", "Failed") else None
    return (Span("revision", root, None, begin, end, attributes, error), *stages, *agents)


def _agents(status: RevisionStatus, number: int, stages: Sequence[Span]) -> tuple[list[Span], int]:
    """Return a span for each of the slowest agents, from the push on, and how many more there are."""
    by_name = {one.name: one for one in stages}
    pushed, applied = by_name.get("pushed"), by_name.get("applied")
    if pushed is None or applied is None:
        return [], 0
    done = sorted(
        ((one.applied.timestamp(), name) for name, one in status.agents.items() if one.applied is not None),
        reverse=True,
    )
    spans = [
        Span(
            "agent",
            _span(status.revision, number, "agent", name),
            applied.span,
            pushed.end,
            max(pushed.end, moment),
            {"cloudlunacy.agent": name, "cloudlunacy.state": status.agents[name].state},
        )
        for moment, name in done[:MOST_AGENTS]
    ]
    return spans, len(done) - len(spans)


def _span(*parts: object) -> int:
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") or 1
