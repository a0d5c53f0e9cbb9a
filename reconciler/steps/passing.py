"""What one pass of the loop knows, step by step, and what is published when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.desired.composition import Composition
from reconciler.desired.finding import Finding
from reconciler.desired.news import FileNews
from reconciler.desired.observed import AS_DECLARED, Placements
from reconciler.desired.overlay import NO_OVERLAY, Overlay
from reconciler.desired.releases import NO_RELEASES, Releases
from reconciler.desired.rollouts import Rollouts
from reconciler.desired.settle import Settled
from reconciler.desired.snapshot import Change
from reconciler.desired.state import State
from reconciler.pki.certificate_pair import CertificatePair
from reconciler.traefik.publish import Staged
from schemas.objects import ObjectKey
from schemas.plan import Plan
from schemas.problem import Problem
from schemas.session import Item
from schemas.status import CommitSummary


@dataclass(frozen=True, slots=True)
class Published:
    """What fronts and agents have, or are being given. ``revision`` is empty before the first publication."""

    generation: int = 0
    revision: str = ""
    state: State = field(default_factory=State)
    rendered: Composition | None = field(default_factory=Composition)
    """None after a restart, until there was time to render it again."""
    agents: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Agent → generation in which its document last changed, digest of its items."""
    rollouts: Rollouts = field(default_factory=dict)
    """Which agents' documents have an older version of a deployment for now."""
    releases: Releases = field(default_factory=lambda: NO_RELEASES)
    """What agents' documents let lose its data."""
    overlay: Overlay = NO_OVERLAY
    """What the fronts' files hold beside the render of the state."""
    placements: Placements = field(default_factory=lambda: AS_DECLARED)
    """Where backends answer and how they are, as ``rendered`` says it."""
    confirmed: bool = True
    """Every front was seen to have loaded it."""
    is_lost: bool = False
    """Nothing but its id is known: neither this machine nor the remote has the revision any more."""


class StagedFiles(NamedTuple):
    """One text on the disk of every front, and not yet in place."""

    digest: str
    files: tuple[Staged, ...]
    """In the order of the fronts."""


@dataclass(slots=True)
class Pass:
    """One attempt to bring one revision into service. Filled from the top to the bottom."""

    revision: str
    base: Published
    # source
    commit: CommitSummary = field(default_factory=CommitSummary)
    rewritten: bool = False
    """What is published is no part of this revision's history."""
    difference: tuple[Change, ...] | None = None
    """What git says of the two revisions; None where it cannot."""
    changes: tuple[Change, ...] = ()
    # desire
    news: tuple[FileNews, ...] = ()
    settled: Settled | None = None
    problems: tuple[Problem, ...] = ()
    plan: Plan | None = None
    refused: dict[ObjectKey, Finding] = field(default_factory=dict)
    """Objects that the throwaway Traefik refused, or whose certificate is not there yet."""
    # certificates
    pairs: dict[str, CertificatePair] = field(default_factory=dict)
    """Made for this pass; in service once it is published."""
    overlay: Overlay = NO_OVERLAY
    # fronts
    placements: Placements = field(default_factory=lambda: AS_DECLARED)
    rendered: Composition = field(default_factory=Composition)
    generation: int = 0
    """The number that it is published under. Until then nothing has that number, and another pass may take it."""
    staged: StagedFiles | None = None
    # delivery
    agents: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    rollouts: Rollouts = field(default_factory=dict)
    releases: Releases = field(default_factory=lambda: NO_RELEASES)
    items: Mapping[str, tuple[Item, ...]] = field(default_factory=dict)
    """Items of the agents whose document changes."""

    @property
    def is_again(self) -> bool:
        """Whether it brings nothing but what has changed beside the repository, such as a certificate."""
        return self.revision == self.base.revision

    @property
    def state(self) -> State:
        assert self.settled is not None
        return self.settled.state
