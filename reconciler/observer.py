"""What agents say, taken note of: in convergence records at once, in the store once a second, in the timeline."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, Literal, Protocol

from reconciler.errors import Broken, Transient
from reconciler.observability.logs import get_logger
from reconciler.observability.metrics import Metrics
from reconciler.status import Tracker
from reconciler.store.protocols import AgentObservation, Event, EventStore, ObservationStore
from schemas.observation import DeploymentUsage
from schemas.session import OBSERVATIONS, CommandOutput, Heartbeat, Hello, Observation, Report, Usage
from schemas.status import AgentProgress, AgentState

log = get_logger(__name__)

Severity = Literal["info", "warning", "error"]
SECONDS: Final = 1.0
MAX_PENDING_EVENTS: Final = 10_000
_STATES: Final[dict[str, AgentState]] = {
    "applied": "applied",
    "progressing": "progressing",
    "failed": "failed",
    "refused": "failed",
}


class Watching(Protocol):
    """Whoever keeps track of what agents say of their documents: :class:`reconciler.steps.standings.Standings`."""

    def connected(self, name: str, hello: Hello, now: float) -> None: ...
    def disconnected(self, name: str, now: float) -> None: ...
    def reported(self, name: str, report: Report, now: float) -> None: ...


class Witness(Protocol):
    """Who judges endpoints by it: :class:`reconciler.steps.observing.Observing`. Calls must be quick."""

    def connected(self, agent: str) -> None: ...
    def disconnected(self, agent: str) -> None: ...
    def heard(self, agent: str) -> None: ...
    def tells(self, agent: str) -> None:
        """The agent will tell what it sees."""
        ...

    def told(self, agent: str, observation: Observation) -> None: ...


class AgentObserver:
    """The hub calls it synchronously; ``run`` writes what was gathered."""

    def __init__(self, tracker: Tracker, store: ObservationStore, events: EventStore, metrics: Metrics) -> None:
        self._tracker = tracker
        self._store = store
        self._events = events
        self._metrics = metrics
        self._seen: dict[str, AgentObservation] = {}
        self._dirty: set[str] = set()
        self._waiting: deque[Event] = deque()
        self._connected: set[str] = set()
        self._failing: dict[str, str] = {}
        """Agent → the failure that was told of it last."""
        self.watching: Watching | None = None
        """Told of sessions and reports, after the records."""
        self.on_output: Callable[[str, CommandOutput], None] = lambda _name, _output: None
        """Called with what commands write."""
        self.on_gone: Callable[[str], None] = lambda _name: None
        """Called with the agents that disconnect."""
        self.on_heartbeat: Callable[[str, Mapping[str, float], float], None] = lambda _name, _metrics, _now: None
        """Called with what machines measure."""
        self.on_usage: Callable[[str, Sequence[DeploymentUsage], float], None] = lambda _name, _usage, _now: None
        """Called with what deployments use."""
        self.witness: Witness | None = None
        self.on_news: Callable[[str], None] = lambda _name: None
        """Called with agents that came, went, or said how they stand; not with each sign of life."""

    @property
    def seen(self) -> Mapping[str, AgentObservation]:
        """The last that was seen of each agent."""
        return self._seen

    async def load(self) -> None:
        """Take over what was seen before a restart; nobody is connected then."""
        self._seen = {one.name: replace(one, connected=False) for one in await self._store.observations()}

    async def run(self) -> None:
        """Write what was gathered, once a second, for ever. What cannot be written is tried again."""
        while True:
            await asyncio.sleep(SECONDS)
            try:
                await self.flush()
            except (Transient, Broken) as error:
                log.warning("what agents say cannot be written", error=str(error))
            except Exception:  # a bug must not end the task
                log.exception("writing what agents say ended by a bug, trying again")

    async def flush(self) -> None:
        """Write what was gathered.

        Raises:
            Transient, Broken: from the store; nothing is forgotten then.
        """
        dirty = set(self._dirty)
        if dirty:
            self._dirty -= dirty
            try:
                await self._store.save_observations([self._seen[name] for name in dirty])
            except BaseException:
                self._dirty |= dirty
                raise
        while self._waiting:
            await self._events.append(self._waiting[0])
            self._waiting.popleft()
        await self._tracker.flush()

    # --- the hub's calls ----------------------------------------------------------------------------------------

    def connected(self, name: str, hello: Hello, now: float) -> None:
        """The agent is there; what it has applied already counts."""
        self._connected.add(name)
        self._note(
            name,
            now,
            connected=True,
            version=hello.version,
            applied_generation=hello.applied_generation,
            applied_digest=hello.applied_digest,
        )
        self._metrics.agents_connected(len(self._connected))
        self._tell("AgentConnected", "info", name, f"connected with version {hello.version}", now)
        self._tracker.agent_presence(name, connected=True)
        if hello.applied_digest is not None:
            applied = AgentProgress(state="applied", applied=datetime.fromtimestamp(now, UTC))
            self._tracker.agent_progress(name, hello.applied_digest, applied)
        if self.watching is not None:
            self.watching.connected(name, hello, now)
        if self.witness is not None:
            self.witness.connected(name)
        self.on_news(name)

    def disconnected(self, name: str, reason: str, now: float) -> None:
        self._connected.discard(name)
        self._note(name, now, connected=False)
        self._metrics.agents_connected(len(self._connected))
        self._tell("AgentDisconnected", "warning", name, reason, now)
        self._tracker.agent_presence(name, connected=False)
        if self.watching is not None:
            self.watching.disconnected(name, now)
        self.on_gone(name)
        if self.witness is not None:
            self.witness.disconnected(name)
        self.on_news(name)

    def reported(self, name: str, report: Report, now: float) -> None:
        applied = {"applied_generation": report.generation, "applied_digest": report.digest}
        self._note(
            name,
            now,
            outcome=report.outcome,
            message=report.message,
            items=[item.model_dump(mode="json", by_alias=True) for item in report.items],
            **(applied if report.outcome == "applied" else {}),
        )
        moment = datetime.fromtimestamp(now, UTC) if report.outcome == "applied" else None
        progress = AgentProgress(
            state=_STATES[report.outcome], applied=moment, reason=report.reason, message=_what_failed(report)
        )
        self._tracker.agent_progress(name, report.digest, progress)
        if self.watching is not None:
            self.watching.reported(name, report, now)
        if report.outcome in ("failed", "refused"):
            text = f"{report.reason}: {_what_failed(report)}"
            if self._failing.get(name) != text:  # it tries again and again, and says so each time
                self._tell("AgentFailed", "error", name, text, now)
            self._failing[name] = text
        elif report.outcome == "applied":
            self._failing.pop(name, None)
        self.on_news(name)

    def heartbeat(self, name: str, heartbeat: Heartbeat, now: float) -> None:
        self._note(name, now, connected=True, metrics=dict(heartbeat.metrics))
        self.on_heartbeat(name, heartbeat.metrics, now)
        if self.witness is not None:
            self.witness.heard(name)

    def features(self, name: str, features: frozenset[str], now: float) -> None:  # noqa: ARG002
        """The agent can do more than report."""
        if self.witness is not None and OBSERVATIONS in features:
            self.witness.tells(name)

    def observation(self, name: str, observation: Observation, now: float) -> None:  # noqa: ARG002
        """What the agent sees of its deployments."""
        if self.witness is not None:
            self.witness.told(name, observation)
        self.on_news(name)

    def usage(self, name: str, usage: Usage, now: float) -> None:
        """What the agent's deployments use."""
        self.on_usage(name, usage.deployments, now)

    def command_output(self, name: str, output: CommandOutput, now: float) -> None:  # noqa: ARG002
        """A piece of what a command wrote."""
        self.on_output(name, output)

    # ------------------------------------------------------------------------------------------------------------

    def _note(self, name: str, now: float, **what: object) -> None:
        known = self._seen.get(name) or AgentObservation(name, False, now, 0, None, "", "", "", (), {})
        self._seen[name] = replace(known, last_seen=now, **what)  # type: ignore[arg-type]
        self._dirty.add(name)

    def _tell(self, kind: str, severity: Severity, name: str, message: str, now: float) -> None:
        self.tell(Event(now, kind, severity, f"agent/{name}", message, actor=f"agent:{name}"))

    def tell(self, event: Event) -> None:
        """Have an event written with what agents say; those beyond what fits are dropped."""
        if len(self._waiting) < MAX_PENDING_EVENTS:
            self._waiting.append(event)
            self._metrics.event(event.severity)


def _what_failed(report: Report) -> str:
    """Return the message of a report; where it has none, what it says of the first item that failed."""
    failed = [item for item in report.items if item.state == "Failed"]
    if report.message or not failed:
        return report.message
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    first = ": ".join(filter(None, (failed[0].id, failed[0].reason, failed[0].message)))
    return f"{first}{more}"
