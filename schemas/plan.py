"""The difference between what is published and what a revision wants, as shown, approved and stored."""

from __future__ import annotations

from typing import Literal

from schemas.base import Model
from schemas.problem import Problem

Action = Literal["create", "update", "delete"]


class ObjectChange(Model):
    """One object that comes, changes or goes."""

    action: Action
    kind: str
    team: str = ""
    name: str
    path: str
    blob: str = ""
    """Blob id of the new version, empty for delete."""
    fields: tuple[str, ...] = ()
    """For update: the fields that differ, such as ``spec.backends[0].port``; at most 20."""


class TrafficChange(Model):
    """What happens to requests for one host."""

    host: str
    entry_point: str
    match: str = ""
    """Paths, methods and headers in words, empty for all requests."""
    action: Literal["added", "removed", "changed"]
    before: str = ""
    """Who answered, in words."""
    after: str = ""
    """Who will answer."""
    effects: tuple[str, ...] = ()
    """What a person should know, such as ``loses TLS``, ``turns 404`` or ``changes backend``."""


class AgentChange(Model):
    """What happens to the document of one agent; items are ``Kind/team/name``."""

    name: str
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class DataLoss(Model):
    """Data that an agent deletes, because it loses a deployment whose ``deletionPolicy`` is to delete."""

    agent: str
    deployment: str
    """``team/name``"""
    data: tuple[str, ...]
    """In words, such as ``the database`` or ``volume uploads``."""


class GuardFinding(Model):
    """Why a person must approve."""

    reason: str
    """CamelCase word, such as ``DeletionGuard``."""
    message: str


class Plan(Model):
    base: str
    """Revision that is published, empty before the first."""
    revision: str
    checksum: str
    """``sha256:…`` over everything above and the changes; an approval names it."""
    changes: tuple[ObjectChange, ...] = ()
    traffic: tuple[TrafficChange, ...] = ()
    agents: tuple[AgentChange, ...] = ()
    losses: tuple[DataLoss, ...] = ()
    """Data that is deleted; a person must approve it."""
    guard: GuardFinding | None = None
    problems: tuple[Problem, ...] = ()
    """What is kept out; its last good version stays in service."""
    revoked: tuple[str, ...] = ()
    """Files whose last good version uses what the fleet grants no more, and serves until they are mended or deleted."""

    @property
    def empty(self) -> bool:
        """Whether nothing would change."""
        return not self.changes and not self.traffic and not self.agents
