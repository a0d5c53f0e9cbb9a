"""What the control plane remembers, as small protocols; ``reconciler.store.sqlite`` is the embedded engine.

Everything but the outbox, the enrolment tokens and the events can be rebuilt from git. Times are POSIX seconds (float).
All calls are coroutines; what is said to be durable is on disk (fsync) when the call returns.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from schemas.problem import Problem


@dataclass(frozen=True, slots=True)
class EnrolmentToken:
    """``secret_sha256`` is the hex digest of the secret part; the secret itself is never stored."""

    id: str
    agent: str
    secret_sha256: str
    created_by: str
    expires_at: float
    used_by: str | None = None
    """Thumbprint of the key that used it."""


class TokenStore(Protocol):
    async def add_token(self, token: EnrolmentToken) -> None: ...

    async def token(self, token_id: str) -> EnrolmentToken | None: ...

    async def use_token(self, token_id: str, thumbprint: str, now: float, *, entry: OutboxEntry | None = None) -> bool:
        """Compare-and-set, durable: True for the first key, and again for the same key; False for any other or late.

        With True the outbox has taken ``entry`` as well: both are on disk, or neither is.
        """
        ...

    async def prune_tokens(self, before: float) -> int: ...


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """An accepted write that is not yet on the remote. ``payload`` is JSON and holds no secret."""

    id: str
    kind: Literal["enrolment", "revocation", "route", "change"]
    payload: Mapping[str, Any]
    accepted_at: float
    attempts: int = 0
    last_error: str = ""


class Outbox(Protocol):
    async def put(self, entry: OutboxEntry) -> None:
        """Durable. Putting an id again changes nothing."""
        ...

    async def pending(self, limit: int = 1000) -> Sequence[OutboxEntry]:
        """Oldest first."""
        ...

    async def settle(self, outcomes: Mapping[str, tuple[str, str | None]], now: float) -> None:
        """Durable, all or none; the entries are pending no more.

        ``outcomes``: entry → ``committed``, ``already-there``, ``proposed`` or ``conflicted: <why>``, and the commit.
        """
        ...

    async def failed(self, entry_ids: Sequence[str], error: str) -> None:
        """Count an attempt; the entries stay pending."""
        ...

    async def outcome(self, entry_id: str) -> tuple[str, str | None] | None:
        """Return (outcome, revision) of a settled entry, None while it is pending or unknown."""
        ...


@dataclass(frozen=True, slots=True)
class Barred:
    """A key of an agent that an operator has locked out. ``thumbprint`` is empty where the agent had no key yet."""

    name: str
    thumbprint: str
    quarantine: bool
    """It counts until the agent's file says so itself; else for good."""
    reason: str
    by: str
    at: float
    entry_id: str
    """Of the outbox: the commit that tells git."""


class BarStore(Protocol):
    async def bar(self, barred: Barred, entry: OutboxEntry) -> None:
        """Durable, all or none: the bar (replacing that of the same key), its entry, and the end of unused tokens."""
        ...

    async def barred(self) -> Sequence[Barred]: ...

    async def unbar(self, barred: Barred) -> None:
        """Durable. Nothing happens where it was replaced by another since."""
        ...


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token of a person or of CI. ``secret_sha256`` is the hex digest of the secret part, which is never stored."""

    id: str
    name: str
    kind: Literal["ci", "person"]
    scopes: tuple[str, ...]
    secret_sha256: str = field(repr=False)
    created_by: str
    created_at: float
    expires_at: float
    revoked_at: float | None = None
    first_used_at: float | None = None
    last_used_at: float | None = None
    told_expiry: bool = False
    """The timeline says that it has expired."""
    team: str = ""
    """The team whose deployments are all that it is good for; empty: no such limit."""


class ApiTokenStore(Protocol):
    async def save_api_token(self, token: ApiToken) -> None:
        """Durable; adds it, or replaces what is known of it."""
        ...

    async def api_tokens(self) -> Sequence[ApiToken]:
        """Oldest first."""
        ...

    async def forget_api_tokens(self, ended_before: float) -> int:
        """Forget those that expired or were revoked before that time; return how many."""
        ...


class OwnCommits(Protocol):
    async def put_own_commits(self, commits: Mapping[str, tuple[str, ...]]) -> None:
        """Durable. ``commits``: id → the only paths that it changes, sorted."""
        ...

    async def own_commit(self, revision: str) -> tuple[str, ...] | None:
        """Return the only paths that a commit of ours changes, sorted; None where we did not make it."""
        ...


@dataclass(frozen=True, slots=True)
class Retained:
    """A file with findings. Where it is quarantined, its object goes on in its last good version, if it has one."""

    path: str
    blob: str
    """Of the newest version; empty where there is none."""
    last_good: str = ""
    """Blob that is in service in its place; empty where nothing is."""
    findings: Sequence[Mapping[str, Any]] = ()
    """JSON of what is wrong with the newest version."""
    compiled: Sequence[Any] | None = None
    """JSON of what was compiled from the last good version, with what it referred to then."""
    claims: Sequence[Any] | None = None
    """JSON of what the last good version claims."""
    selected: Sequence[str] | None = None
    """Agents that the last good version of a deployment had chosen by label."""


@dataclass(frozen=True, slots=True)
class Publication:
    """The newest published generation: all that a restart needs to go on from it."""

    generation: int
    revision: str
    published_at: float
    retained: Sequence[Retained] = ()
    agents: Mapping[str, tuple[int, str]] | None = None
    """Agent → (generation in which its document last changed, digest of its items)."""
    front_digest: str = ""
    """Digest of what the fronts' files hold."""
    confirmed: bool = False
    """Every front was seen to have loaded it."""
    rollouts: Sequence[Mapping[str, Any]] = ()
    """JSON of the roll-outs under way (``reconciler.desired.rollouts``)."""
    releases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What agents may delete the data of (``reconciler.desired.releases``)."""


class PublicationStore(Protocol):
    async def publication(self) -> Publication | None:
        """Return the newest; without ``agents`` where the store was lost but for a copy of the rest."""
        ...

    async def save_publication(self, publication: Publication) -> None:
        """Durable; replaces the former one. Refuses (ValueError) a generation that is not newer, unless equal."""
        ...

    async def confirm_publication(self, generation: int) -> None:
        """Durable. Marks the newest publication as confirmed; nothing happens when its generation is another one."""
        ...

    async def confirmed_publication(self) -> Publication | None:
        """Return the newest publication that was confirmed: what a failure goes back to."""
        ...

    async def last_generation(self) -> int:
        """Return the number that the next generation must exceed, also after the rest was lost."""
        ...


@dataclass(frozen=True, slots=True)
class Approval:
    checksum: str
    approved_by: str
    approved_at: float


class ApprovalStore(Protocol):
    async def approve(self, approval: Approval) -> None: ...

    async def approval(self, checksum: str) -> Approval | None: ...

    async def approvals(self, *, limit: int = 100, before: str = "") -> Sequence[Approval]:
        """Newest first. ``before``: the checksum that the former page ended with."""
        ...


@dataclass(frozen=True, slots=True)
class RevisionRecord:
    """The convergence record of one revision, as stored; ``status REV`` shows it with the agents added."""

    revision: str
    generation: int | None
    state: Literal["Progressing", "Converged", "Held", "Failed", "Superseded"]
    reason: str
    message: str
    stages: Mapping[str, float]
    """Stage → time. Stages: fetched validated planned rendered preflighted published loaded pushed applied."""
    agents: Mapping[str, tuple[str, float | None]]
    """Agent concerned → (state, time applied)."""
    quarantined: Sequence[Problem]
    plan: Mapping[str, Any] | None
    """JSON of the plan, with its checksum."""
    commit: Mapping[str, Any]
    """Author, subject and time of the commit."""
    updated_at: float
    rollouts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Deployment → JSON of where its roll-out stands (``schemas.status.DeploymentRollout``)."""


class RecordStore(Protocol):
    async def save_record(self, record: RevisionRecord) -> None: ...

    async def record(self, revision: str) -> RevisionRecord | None:
        """``revision`` may be abbreviated to no less than 7 digits; None where unknown or ambiguous."""
        ...

    async def records(
        self, *, limit: int = 50, before: float | None = None, plans: bool = True
    ) -> Sequence[RevisionRecord]:
        """Newest first. Without ``plans`` there are but their checksums: a plan may be megabytes."""
        ...

    async def page_of_records(
        self, *, limit: int = 50, before: int | None = None, states: Collection[str] = ()
    ) -> Sequence[tuple[int, RevisionRecord]]:
        """Newest first, each with its place, which it keeps: by when it was first saved, whatever changes later.

        Of plans there are but the checksums.
        """
        ...


@dataclass(frozen=True, slots=True)
class AgentObservation:
    """The last that was seen of an agent."""

    name: str
    connected: bool
    last_seen: float
    applied_generation: int
    applied_digest: str | None
    version: str
    outcome: str
    message: str
    items: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, float]


class ObservationStore(Protocol):
    async def save_observations(self, observations: Sequence[AgentObservation]) -> None:
        """Not durable at once; a lost row is seen again with the next heartbeat."""
        ...

    async def observations(self) -> Sequence[AgentObservation]: ...

    async def forget_agent(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for the timeline and the audit."""

    time: float
    type: str
    """CamelCase, such as RevisionPublished, ObjectQuarantined, AgentEnrolled, PlanApproved."""
    severity: Literal["info", "warning", "error"]
    subject: str
    """``Kind/team/name``, ``agent/NAME`` or ``revision/REV``."""
    message: str
    revision: str = ""
    actor: str = ""
    id: int = 0
    """Set by the store; grows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events are wanted: those of which all of it is true; what is empty or None asks for nothing."""

    types: frozenset[str] = frozenset()
    """One of them."""
    severities: frozenset[str] = frozenset()
    under: str = ""
    """How the subject begins, such as ``Route/shop/``."""
    actor: str = ""
    revision: str = ""
    """How the revision begins."""
    words: tuple[str, ...] = ()
    """Each occurs in type, subject or message; for ASCII letters the case does not count."""
    since: float | None = None
    """POSIX seconds; not before it."""
    until: float | None = None
    """Before it."""


ANY_EVENT: Final = EventFilter()


class EventStore(Protocol):
    async def append(self, event: Event) -> Event: ...

    async def events(
        self,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
        subject: str | None = None,
        wanted: EventFilter = ANY_EVENT,
    ) -> Sequence[Event]:
        """Return what lies between two events, oldest first unless said otherwise; ids only grow, so pages are stable.

        ``subject``: of it alone.
        """
        ...
