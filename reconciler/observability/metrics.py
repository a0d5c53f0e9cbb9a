"""What Prometheus scrapes. One ``Metrics`` for a process, with a registry of its own.

Labels are bounded: a value that is not in the list of its label becomes ``other``. So no name that a tenant, an agent
or a remote chose can become a time series; those belong into logs and events.
"""

from __future__ import annotations

import time
from collections import Counter as Totals
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.objects import KINDS

OTHER: Final = "other"
STAGES: Final = (
    *("fetched", "validated", "planned", "rendered", "preflighted", "published", "loaded", "pushed", "applied"),
    *("parsed", "probed", "reconciled"),
)
"""Stages of the convergence record, and the steps inside them that are worth a clock."""
STATES: Final = ("Progressing", "Converged", "Held", "Failed", "Superseded")
GIT_OPERATIONS: Final = (
    *("ls-remote", "fetch", "ls-tree", "diff-tree", "cat-file", "rev-list", "log", "verify-commit", "fast-import"),
    *("push", "init", "fsck", "gc", "merge-base"),
)
FAILURES: Final = (
    *(
        "Unavailable",
        "RemoteUnavailable",
        "AuthenticationFailed",
        "GitTimeout",
        "Redirected",
        "RemoteMoved",
        "DiskFull",
    ),
    *("BranchMissing", "FetchRefused", "TooManyFiles", "MirrorDamaged", "UnknownRevision", "HistoryRewritten"),
    *("PreflightUnavailable", "TraefikUnavailable", "TraefikAnswer", "StoreBusy", "StoreUnavailable", "StoreReplaced"),
    *("Broken", "InternalError"),
)
WEBHOOK_REASONS: Final = ("accepted", "repeated", "bad-signature", "body-too-large", "webhooks-off")
"""``accepted``, why one was ignored, or the code of the refusal."""
ENROLMENT_OUTCOMES: Final = (
    *("committed", "already-there", "proposed", "conflicted", "queued", "bad-token", "token-for-another-agent"),
    *("token-spent", "too-many-requests", "too-many-enrolments", "not-ready", "enrolment-conflict", "identity-exists"),
    *("label-reserved", "address-refused", "address-taken", "bad-proof", "malformed"),
)
"""Outcome of an outbox entry, or the code of the refusal."""
MESSAGE_TYPES: Final = ("hello", "report", "heartbeat", "welcome", "desired", "goodbye")
DIRECTIONS: Final = ("in", "out")
PREFLIGHT_REASONS: Final = ("ObjectsRefused", "PreflightFailed", "PreflightUnavailable")
READ_BACK_REASONS: Final = ("Late", "ObjectsDisabled", "Unreachable", "Tampered")
CAUSES: Final = ("commit", "renewal", "observation", "restored")
SEVERITIES: Final = ("info", "warning", "error")
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def bounded(value: str, allowed: frozenset[str]) -> str:
    """Return ``value`` where it is allowed, else ``other``."""
    return value if value in allowed else OTHER


class Metrics:
    """Call the methods; they keep the labels bounded. Times are in seconds, ages are taken against ``clock``."""

    def __init__(
        self,
        *,
        problem_codes: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``problem_codes`` are the codes that the program knows (docs/problems.md); others count as ``other``."""
        self.registry = CollectorRegistry()
        self._clock = clock
        self._timer = timer
        self._codes = problem_codes
        self._oldest_entry: float | None = None
        self._oldest_commit: float | None = None
        self._published: str = ""
        self._make_reconcile()
        self._make_outside()
        self._make_agents()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    # --- the way of a commit ---

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block as a stage; one that raises counts too."""
        begin = self._timer()
        try:
            yield
        finally:
            self.stage_took(name, self._timer() - begin)

    def stage_took(self, name: str, seconds: float) -> None:
        self._stage.labels(bounded(name, _STAGES)).observe(seconds)

    def revision(self, state: str) -> None:
        """Count a revision that reached this state."""
        self._revisions.labels(bounded(state, _STATES)).inc()

    def newest(self, state: str) -> None:
        """Show the state of the newest revision."""
        for one in STATES:
            self._newest.labels(one).set(one == state)

    def problem(self, code: str) -> None:
        self._problems.labels(bounded(code, self._codes)).inc()

    def poll(self, failure: str | None = None) -> None:
        """Count a look at the remote, and with the reason of Transient or Rejected a failed one."""
        self._polls.inc()
        if failure is not None:
            self._poll_failures.labels(bounded(failure, _FAILURES)).inc()

    def preflight_failed(self, reason: str) -> None:
        self._preflight_failures.labels(bounded(reason, _PREFLIGHT)).inc()

    def published(self, generation: int, revision: str, cause: str = "commit") -> None:
        """Count a publication and show what is published."""
        self._publications.inc()
        self._generations.labels(bounded(cause, _CAUSES)).inc()
        self.serving(generation, revision)

    def serving(self, generation: int, revision: str) -> None:
        """Show what is published, also what a restart found."""
        self._generation.set(generation)
        if self._published and self._published != revision:
            self._published_info.remove(self._published)
        self._published = revision
        self._published_info.labels(revision).set(1)

    def restored(self) -> None:
        self._restores.inc()
        self._generations.labels("restored").inc()

    def read_back_failed(self, reason: str) -> None:
        self._read_back_failures.labels(bounded(reason, _READ_BACK)).inc()

    def objects(self, counts: Mapping[str, int], *, quarantined: int) -> None:
        """Show the valid objects of each kind, and how many objects are quarantined."""
        for kind in KINDS:
            self._objects.labels(kind).set(counts.get(kind, 0))
        self._quarantined.set(quarantined)

    def waiting_since(self, commit_time: float | None) -> None:
        """Set since when the newest commit waits to converge (POSIX seconds); None when it has."""
        self._oldest_commit = commit_time

    # --- git, webhooks, the outbox ---

    @contextmanager
    def git(self, operation: str) -> Iterator[None]:
        """Time a git operation; one that raises counts as failed."""
        begin, failed = self._timer(), True
        try:
            yield
            failed = False
        finally:
            self.git_took(operation, self._timer() - begin, failed=failed)

    def git_took(self, operation: str, seconds: float, *, failed: bool = False) -> None:
        label = bounded(operation, _GIT)
        self._git.labels(label).observe(seconds)
        if failed:
            self._git_failures.labels(label).inc()

    def webhook(self, reason: str) -> None:
        """Count a webhook: ``accepted``, or why it was refused."""
        self._webhooks.labels(bounded(reason, _WEBHOOK)).inc()

    def enrolment(self, outcome: str) -> None:
        """Count an enrolment; of ``conflicted: <why>`` the first word."""
        self._enrolments.labels(bounded(outcome.partition(":")[0], _ENROLMENT)).inc()

    def group_committed(self, size: int) -> None:
        self._group.observe(size)

    def push(self, *, failed: bool = False) -> None:
        """Count a push to the remote."""
        (self._push_failures if failed else self._pushes).inc()

    def outbox(self, depth: int, oldest: float | None) -> None:
        """Show the backlog, as ``SQLiteStore.backlog`` returns it."""
        self._outbox_depth.set(depth)
        self._oldest_entry = oldest

    # --- agents, events ---

    def agents_connected(self, count: int) -> None:
        self._connected.set(count)

    def messages_of(self, counts: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Show the agents' messages as ``counts`` says when asked: (type, ``in`` or ``out``) → messages so far."""
        self._messages.counts = counts

    def event(self, severity: str) -> None:
        self._events.labels(bounded(severity, _SEVERITIES)).inc()

    def store_replaced(self) -> None:
        """Count a database file that had to be replaced."""
        self._replaced.inc()

    def server_certificate(self, not_after: float) -> None:
        """The server's own certificate ends then, in POSIX seconds."""
        self._certificate_ends.set(not_after)

    def render(self) -> tuple[bytes, str]:
        """Return the exposition and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    # --- making them ---

    def _make_reconcile(self) -> None:
        self._stage = self._histogram("stage_seconds", "Time that a stage of a reconcile took.", SECONDS, "stage")
        self._revisions = self._counter("revisions", "Revisions that reached a state.", "state")
        self._newest = self._gauge("newest_revision", "1 at the state in which the newest revision is.", "state")
        self._problems = self._counter("problems", "Problems found in the state repo.", "code")
        self._preflight_failures = self._counter(
            "preflight_failures", "Candidates that the preflight refused.", "reason"
        )
        self._publications = self._counter("publications", "Generations published.")
        self._generations = self._counter("generations", "Generations published, by what made them necessary.", "cause")
        self._restores = self._counter("restores", "Times that the former generation was put back.")
        self._read_back_failures = self._counter("read_back_failures", "Generations that did not load.", "reason")
        self._generation = self._gauge("generation", "Generation that is published.")
        self._published_info = self._gauge("published_revision_info", "Revision that is published.", "revision")
        self._objects = self._gauge("objects", "Valid objects.", "kind")
        self._quarantined = self._gauge("objects_quarantined", "Objects kept out because of problems.")
        # from 0 on, because increase() does not see the first one of a series that begins with it
        for counter, values in (
            (self._revisions, STATES),
            (self._preflight_failures, PREFLIGHT_REASONS),
            (self._read_back_failures, READ_BACK_REASONS),
        ):
            for value in values:
                counter.labels(value)
        lag = self._gauge("convergence_lag_seconds", "Age of the newest commit that has not converged; 0 when it has.")
        lag.set_function(lambda: self._age(self._oldest_commit))

    def _make_outside(self) -> None:
        self._polls = self._counter("polls", "Looks at the remote.")
        self._poll_failures = self._counter("poll_failures", "Looks at the remote that failed.", "reason")
        self._git = self._histogram("git_operation_seconds", "Time that a git operation took.", SECONDS, "operation")
        self._git_failures = self._counter("git_operation_failures", "Git operations that failed.", "operation")
        self._webhooks = self._counter("webhooks", "Webhooks received, accepted or refused.", "reason")
        self._group = self._histogram("group_commit_size", "Enrolments that went into one push.", SIZES)
        self._pushes = self._counter("pushes", "Pushes to the remote that it took.")
        self._push_failures = self._counter("push_failures", "Pushes to the remote that it did not take.")
        self._outbox_depth = self._gauge("outbox_depth", "Accepted writes that are not yet on the remote.")
        age = self._gauge("outbox_oldest_age_seconds", "Age of the oldest of them.")
        age.set_function(lambda: self._age(self._oldest_entry))
        self._replaced = self._counter("store_replaced", "Database files that were damaged or removed and replaced.")

    def _make_agents(self) -> None:
        self._enrolments = self._counter("enrolments", "Enrolments by outcome.", "outcome")
        self._connected = self._gauge("agents_connected", "Agents with an open stream.")
        self._certificate_ends = self._gauge(
            "server_certificate_not_after_seconds", "When the certificate of the control plane itself ends, POSIX time."
        )
        self._messages = _Messages()
        self.registry.register(self._messages)
        self._events = self._counter("events", "Events appended to the timeline.", "severity")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"cloudlunacy_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"cloudlunacy_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"cloudlunacy_{name}", text, labels, registry=self.registry, buckets=buckets)

    def _age(self, since: float | None) -> float:
        return 0.0 if since is None else max(0.0, self._clock() - since)


class _Messages(Collector):
    """Counted elsewhere, where each message costs no more than an addition, and read at each scrape."""

    def __init__(self) -> None:
        self.counts: Callable[[], Mapping[tuple[str, str], int]] = dict

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "cloudlunacy_agent_messages", "Messages of the agents' stream.", labels=("type", "direction")
        )
        totals = Totals[tuple[str, str]]()
        for (kind, direction), count in self.counts().items():
            totals[bounded(kind, _MESSAGES), bounded(direction, _DIRECTIONS)] += count
        for labels, total in totals.items():
            family.add_metric(labels, total)
        yield family


_STAGES: Final = frozenset(STAGES)
_STATES: Final = frozenset(STATES)
_GIT: Final = frozenset(GIT_OPERATIONS)
_FAILURES: Final = frozenset(FAILURES)
_WEBHOOK: Final = frozenset(WEBHOOK_REASONS)
_ENROLMENT: Final = frozenset(ENROLMENT_OUTCOMES)
_MESSAGES: Final = frozenset(MESSAGE_TYPES)
_DIRECTIONS: Final = frozenset(DIRECTIONS)
_PREFLIGHT: Final = frozenset(PREFLIGHT_REASONS)
_READ_BACK: Final = frozenset(READ_BACK_REASONS)
_SEVERITIES: Final = frozenset(SEVERITIES)
_CAUSES: Final = frozenset(CAUSES)
