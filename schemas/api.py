"""Shapes of the API's answers, besides those that have a module of their own."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import StringConstraints

from schemas.base import Model
from schemas.health_api import Drain, EndpointHealth, Presence
from schemas.problem import Problem
from schemas.session import ItemResult
from schemas.status import AgentState, RevisionState, RevisionStatus, Stage


class FrontStatus(Model):
    """One front. ``drifted``: its file is not what was published."""

    name: str
    file: str
    loaded_generation: int | None = None
    """What its Traefik serves; None where the API does not answer."""
    mongodb_port: int | None = None
    """Of the entry point for MongoDB; None where that is not known."""
    message: str = ""


class FleetStatus(Model):
    """What is published, and how it stands."""

    generation: int
    revision: str
    published_objects: dict[str, int]
    """Kind → objects in service."""
    quarantined: tuple[Problem, ...] = ()
    agents_connected: int
    agents_total: int
    fronts: tuple[FrontStatus, ...] = ()
    newest: RevisionStatus | None = None
    """The record of the newest revision that was looked at."""


class RevisionList(Model):
    """Newest first, by when each was first looked at."""

    revisions: tuple[RevisionStatus, ...]
    next: str = ""
    """Give it as ``before`` for the next page; empty on the last one. A revision keeps its place, whatever it does."""


class StageReached(Model):
    """A stage of a revision's way. ``seconds``: after the stage before it that was reached."""

    stage: Stage
    at: datetime | None = None
    seconds: float | None = None


class Convergence(Model):
    """How far a revision has come, and what it waits for."""

    revision: str
    state: RevisionState
    reason: str = ""
    message: str = ""
    stages: tuple[StageReached, ...]
    agents: dict[AgentState, int]
    """State → agents concerned that are in it."""
    waiting: tuple[str, ...] = ()
    """The first hundred agents that have not applied it."""


class ObjectSummary(Model):
    kind: str
    team: str = ""
    name: str
    path: str
    blob: str
    state: Literal["InService", "LastGood", "Quarantined"]
    """LastGood: the newest version is quarantined, an older one is in service; Quarantined: nothing is."""
    problems: tuple[Problem, ...] = ()


class ObjectList(Model):
    objects: tuple[ObjectSummary, ...]
    next: str = ""
    """Give it as ``after`` for the next page; empty on the last one."""


class PublishedObject(Model):
    path: str
    blob: str
    document: dict[str, Any]


class PublishedState(Model):
    """Every object in service, for plans that are made elsewhere. Secrets stay sealed."""

    generation: int
    revision: str
    objects: tuple[PublishedObject, ...]


class AgentCondition(Model):
    """One of three that are judged apart. ``Unknown``: what was told or probed is too old, or nothing ever was."""

    type: Literal["Connected", "Workloads", "DataPlane"]
    """The socket; engine and deployments as the agent told; what routes lead to there, as it was probed."""
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    since: datetime
    heard: datetime | None = None
    """When that was last heard of which it is judged."""


class DeploymentMeasures(Model):
    """What a deployment uses on one agent, by the names of docs/metrics.md."""

    agent: str = ""
    team: str
    name: str
    at: datetime
    values: dict[str, float]


class AgentStatus(Model):
    name: str
    state: Literal["active", "cordoned", "quarantined"]
    enrolled: bool
    connected: bool
    last_seen: datetime | None = None
    version: str = ""
    wanted_generation: int = 0
    applied_generation: int = 0
    outcome: str = ""
    message: str = ""
    items: tuple[ItemResult, ...] = ()
    metrics: dict[str, float] = {}
    """The last that it told, see docs/metrics.md; as old as ``lastSeen``."""
    conditions: tuple[AgentCondition, ...] = ()
    presence: Presence = "Unknown"
    drain: Drain | None = None
    endpoints: tuple[EndpointHealth, ...] = ()
    """Ports of which something is known (docs/health.md)."""


class AgentDetail(AgentStatus):
    deployments: tuple[DeploymentMeasures, ...] = ()


class AgentList(Model):
    agents: tuple[AgentStatus, ...]
    next: str = ""


class EventView(Model):
    id: int
    time: datetime
    type: str
    severity: Literal["info", "warning", "error"]
    subject: str
    message: str
    revision: str = ""
    actor: str = ""


class EventList(Model):
    events: tuple[EventView, ...]
    next: str = ""
    """Give it as ``after`` for the next page, or as ``before`` where the newest come first; empty on the last one."""


class SecretSummary(Model):
    """A secret: what it is called, and which keys it has. Its values are nobody's business here."""

    team: str
    name: str
    path: str
    keys: tuple[str, ...]
    used_by: tuple[str, ...] = ()
    """Paths of objects in service that refer to it."""


class SecretList(Model):
    secrets: tuple[SecretSummary, ...]
    next: str = ""
    """Give it as ``after`` for the next page; empty on the last one."""


Checksum = Annotated[
    str, StringConstraints(pattern=r"^(sha256:[0-9a-f]{64}|rewrite:[0-9a-f]{40,64}\.\.[0-9a-f]{40,64})$")
]


class ApprovalRequest(Model):
    checksum: Checksum
    """Of the plan, or of the rewrite, as the status shows it."""


class ApprovalView(Model):
    """What a person let through, or is asked to."""

    checksum: str
    state: Literal["waiting", "approved"]
    approved_by: str = ""
    approved_at: datetime | None = None
    revision: str = ""
    """The newest revision, where it waits for this."""


class ApprovalList(Model):
    """What waits comes first, then what was approved, newest first."""

    approvals: tuple[ApprovalView, ...]
    next: str = ""
    """Give it as ``before`` for the next page; empty on the last one."""


class ApprovalAnswer(Model):
    checksum: str
    approved_by: str


class Accepted(Model):
    accepted: bool
    message: str = ""


class Health(Model):
    status: Literal["ok", "starting"]
    message: str = ""
