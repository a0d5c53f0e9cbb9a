"""Where a revision stands, as the API and ``cloudlunacy status`` show it."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from schemas.base import EMPTY, Model
from schemas.problem import Problem

Stage = Literal[
    "fetched", "validated", "planned", "rendered", "preflighted", "published", "loaded", "pushed", "applied"
]
STAGES: Final[tuple[Stage, ...]] = (
    "fetched",
    "validated",
    "planned",
    "rendered",
    "preflighted",
    "published",
    "loaded",
    "pushed",
    "applied",
)
"""In the order in which a revision reaches them."""

RevisionState = Literal["Progressing", "Converged", "Held", "Failed", "Superseded"]
RolloutState = Literal["Progressing", "Paused", "Failed", "Done"]
RolloutPlace = Literal["waiting", "changing", "done", "failed", "offline"]
AgentState = Literal["pending", "progressing", "applied", "failed", "offline"]
FINAL_STATES: Final[frozenset[RevisionState]] = frozenset({"Converged", "Held", "Failed"})


class AgentProgress(Model):
    """Where one concerned agent stands. ``applied``: when it had applied its document of this revision."""

    state: AgentState
    applied: datetime | None = None
    reason: str = ""
    message: str = ""


class RolloutStep(Model):
    """What an agent said of a deployment at a time, in the words of its report."""

    at: datetime
    state: Literal["Applied", "Progressing", "Failed"]
    reason: str = ""
    message: str = ""


class AgentRollout(Model):
    """One agent on its way to the newest version of a deployment."""

    state: RolloutPlace
    """``waiting``: it has an older version, and its turn has not come."""
    steps: tuple[RolloutStep, ...] = ()
    """The newest ones, oldest first."""


class DeploymentRollout(Model):
    """The way of one deployment to the version that a revision brought. Names the agents that matter most."""

    state: RolloutState
    message: str = ""
    begun: datetime
    agents: dict[str, AgentRollout] = EMPTY
    left_out: int = 0
    """Further agents, for which there was no room here."""


class CommitSummary(Model):
    author: str = ""
    subject: str = ""
    time: datetime | None = None


class RevisionStatus(Model):
    """The convergence record of one revision."""

    revision: str
    generation: int | None = None
    """None where nothing was published for it."""
    state: RevisionState
    reason: str = ""
    """CamelCase word."""
    message: str = ""
    stages: dict[Stage, datetime | None]
    agents: dict[str, AgentProgress] = {}
    """The agents whose document changed with this revision."""
    rollouts: dict[str, DeploymentRollout] = EMPTY
    """The deployments that this revision changes on agents, as ``team/name``; the unfinished ones come first."""
    quarantined: tuple[Problem, ...] = ()
    plan_checksum: str = ""
    """Of what publishing it would change."""
    approve: str = ""
    """What to approve, where the revision is held for a person: the plan's checksum, or a rewrite of history."""
    superseded_by: str = ""
    commit: CommitSummary = CommitSummary()
