"""What is known of backends, kept and told: from agents' words to what fronts should serve, and back to the agents.

The hub's words come in through the methods of :class:`reconciler.observer.Witness`; :mod:`reconciler.steps.knocking`
brings what connecting to endpoints of silent agents gives; operators drain. :mod:`reconciler.desired.verdicts` judges.

:meth:`Observing.placements` is what a pass asks for its state, and :meth:`Observing.look` what is asked between passes.
What an agent told is on disk before fronts get it, and an agent is told that its word counts once every front has read
it back: from then on it may stop what answered before.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, Protocol

from pydantic import ValidationError

from reconciler.desired.observed import AS_DECLARED, AgentPlacements, Assigned, Placements
from reconciler.desired.state import State
from reconciler.desired.verdicts import Change, Deployment, Drain, Endpoint, Judge, Place
from reconciler.observability.logs import get_logger
from reconciler.steps.passing import Published
from reconciler.store.protocols import Event, EventStore
from reconciler.store.seen import Drained, SeenAgent, SeenStore
from schemas.agent import Agent
from schemas.objects import ObjectKey
from schemas.observation import DeploymentObservation
from schemas.session import Observation, ObservationPublished

log = get_logger(__name__)

Severity = Literal["info", "warning"]
GATHER_SECONDS: Final = 0.2
"""How long a word waits for others before fronts get them together."""
MAX_EVENTS: Final = 1000
"""Events that wait for a disk that takes none; what comes later is not told."""
STATES: Final = 2
"""States of which it is remembered what git gives to whom: the published one, and that of the pass under way."""
_WHY: Final[Mapping[str, str]] = {
    "unhealthy": "its health check fails",
    "starting": "it has not been healthy yet",
    "stopped": "it does not run",
    "unreachable": "its agent is silent, and nothing answers there",
}


class Teller(Protocol):
    """:class:`reconciler.agents.hub.Hub`."""

    def tell(self, name: str, message: ObservationPublished) -> bool: ...


class Observing:
    """``silence`` are the seconds after which an agent counts as silent; ``barred`` the keys that are locked out."""

    def __init__(
        self,
        store: SeenStore,
        events: EventStore,
        *,
        silence: Callable[[], float],
        barred: Callable[[], frozenset[tuple[str, str]]],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.judge = Judge()
        self.drains: dict[str, Drained] = {}
        self.nudge: Callable[[], None] = lambda: None
        """Has what is new looked at soon."""
        self.teller: Teller | None = None
        self.on_change: Callable[[Change], None] = lambda _: None
        self._store = store
        self._events = events
        self._silence = silence
        self._barred = barred
        self._clock = clock
        self._monotonic = monotonic
        self._assigned: deque[Assigned] = deque(maxlen=STATES)
        self._saved: dict[str, SeenAgent] = {}
        self._unsaved: set[str] = set()
        self._numbers: dict[str, int] = {}
        """Observation of each connected agent that it was not told of yet."""
        self._unknown: set[str] = set()
        """Agents whose silence was told."""
        self._hosts: dict[str, str] = {}
        """Address of each agent, as git had it last."""
        self._notices: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._nudging: asyncio.TimerHandle | None = None

    # --- the observer's calls -----------------------------------------------------------------------------------

    def connected(self, agent: str) -> None:
        self.judge.connected(agent, self._monotonic())
        self._unknown.discard(agent)
        self._numbers.pop(agent, None)
        self._soon()

    def disconnected(self, agent: str) -> None:
        self.judge.disconnected(agent)
        self._numbers.pop(agent, None)

    def heard(self, agent: str) -> None:
        self.judge.heard(agent, self._monotonic())

    def tells(self, agent: str) -> None:
        self.judge.tells(agent, self._monotonic())

    def told(self, agent: str, observation: Observation) -> None:
        self.judge.told(agent, observation.deployments, self._monotonic())
        self._numbers[agent] = observation.number
        self._unsaved.add(agent)
        self._soon()

    def _soon(self) -> None:
        if self._nudging is None:
            self._nudging = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._nudge)

    def _nudge(self) -> None:
        self._nudging = None
        self.nudge()

    # --- what operators want ------------------------------------------------------------------------------------

    async def drain(self, drained: Drained) -> None:
        """Keep requests away from an agent. Durable when it returns."""
        await self._store.drain_agent(drained)
        self._take_drain(drained)
        until = "" if drained.until is None else f" for {drained.until - drained.at:.0f} s"
        why = f": {drained.reason}" if drained.reason else ""
        self._note("AgentDrained", "info", drained.name, f"gets no requests any more{until}{why}", drained.by)
        self._soon()

    async def undrain(self, agent: str, by: str) -> bool:
        """Let an agent have requests again; False where it was not drained. Durable when it returns."""
        if agent not in self.drains:
            return False
        await self._end_drain(agent, "gets requests again", by)
        return True

    async def _end_drain(self, agent: str, text: str, by: str = "") -> None:
        await self._store.undrain_agent(agent)
        self.drains.pop(agent, None)
        self.judge.drain(agent, None, self._monotonic())
        self._note("AgentUndrained", "info", agent, text, by)
        self._soon()

    def _take_drain(self, drained: Drained) -> None:
        now, wall = self._monotonic(), self._clock()
        until = None if drained.until is None else now + drained.until - wall
        self.drains[drained.name] = drained
        self.judge.drain(drained.name, Drain(now - max(0.0, wall - drained.at), until), now)

    # --- across restarts ----------------------------------------------------------------------------------------

    async def load(self, agents: Iterable[str]) -> None:
        """Take up what was known before a restart. ``agents``: those that were connected at some time.

        Raises:
            Transient, Broken: from the store.
        """
        now, wall = self._monotonic(), self._clock()
        self.judge.timeout = self._silence()
        for name in agents:
            self.judge.known(name, now)
        for seen in await self._store.seen_agents():
            try:
                told = [DeploymentObservation.model_validate(one) for one in seen.told]
            except ValidationError as error:
                log.warning("what an agent told cannot be read any more", agent=seen.name, problems=error.error_count())
                continue
            out = {_place(team, name, port): now - max(0.0, wall - since) for team, name, port, since in seen.out}
            self.judge.restore(seen.name, told, out, now)
            self._saved[seen.name] = seen
        for drained in await self._store.drained_agents():
            self._take_drain(drained)

    async def flush(self) -> None:
        """Write what agents told and what was judged, then tell what happened.

        Raises:
            Transient, Broken: from the store; nothing is forgotten then.
        """
        names, self._unsaved = self._unsaved & self.judge.agents.keys(), set()
        rows = [row for row in map(self._row, sorted(names)) if row != self._saved.get(row.name)]
        if rows:
            try:
                await self._store.save_seen(rows)
            except BaseException:
                self._unsaved |= names
                raise
            self._saved |= {row.name: row for row in rows}
        while self._notices:
            await self._events.append(self._notices[0])
            self._notices.popleft()

    def _row(self, name: str) -> SeenAgent:
        seen, now, wall = self.judge.agents[name], self._monotonic(), self._clock()
        former = {one[:3]: one for one in self._saved[name].out} if name in self._saved else {}
        out = [(*(key or ("", "")), port, wall - (now - one.since)) for (key, port), one in seen.endpoints.items()
               if one.is_out]  # fmt: skip
        return SeenAgent(
            name,
            tuple(one.model_dump(mode="json", by_alias=True) for one in seen.told.values()),
            tuple(former.get(one[:3], one) for one in sorted(out)),
        )

    # --- what follows -------------------------------------------------------------------------------------------

    def placements(self, state: State) -> Placements:
        """Return where backends answer and how they are, as is known now, for what ``state`` has in service."""
        if state.fleet is None:
            return AS_DECLARED
        assigned = self._facts(state)
        found = self.judge.placements(assigned, assigned.missing | self._locked_out(state), self._monotonic())
        for change in self.judge.changes:
            self._tell_change(change)
        self.judge.changes.clear()
        return found

    async def look(self, published: Published) -> Placements:
        """Judge by now, keep it, and return what fronts should have.

        Raises:
            Transient, Broken: when it cannot be kept; then nothing may be published by it.
        """
        if published.state.fleet is not None:
            self.judge.timeout = self._silence()
            await self._forget_gone(published)
            agents = ((name, published.state.objects.get(_key(name))) for name in self.judge.agents)
            self._hosts |= {name: agent.spec.address for name, agent in agents if isinstance(agent, Agent)}
            await self._end_drains()
            self._tell_silence()
        wanted = self.placements(published.state)
        await self.flush()
        return wanted

    def acknowledge(self, published: Published) -> None:
        """Tell agents whose word every front serves by now."""
        if not published.confirmed or not self._numbers or self.teller is None:
            return
        wanted = self.placements(published.state)
        for name, number in list(self._numbers.items()):
            if name not in self._unsaved and _same(wanted.get(name), published.placements.get(name)):
                self.teller.tell(name, ObservationPublished(number=number))
                del self._numbers[name]

    def elsewhere(self, address: str) -> tuple[str, ...]:
        """Return where a backend really answers whose address in git is this one; empty where it is there."""
        host, _, port = address.rpartition(":")
        agents = [
            name for name, known in self._hosts.items() if known == host.strip("[]") and name in self.judge.agents
        ]
        actual = {self.judge.actual(name, int(port)) for name in agents} - {int(port)}
        return tuple(f"{host}:{one}" for one in sorted(actual))

    def assigned(self, state: State) -> Assigned:
        """Return what git gives to whom in a state."""
        return self._facts(state)

    def _facts(self, state: State) -> Assigned:
        for one in self._assigned:
            if one.state is state:
                return one
        self._assigned.append(Assigned(state, self._assigned[-1] if self._assigned else None))
        return self._assigned[-1]

    def _locked_out(self, state: State) -> frozenset[str]:
        """Name the agents of a state whose key was locked out by an operator: git may not know yet."""
        return frozenset(name for name, key in self._barred() if key and _thumbprint(state, name) == key)

    async def _forget_gone(self, published: Published) -> None:
        """What is known of an agent ends with its object, once no front can lead there any more."""
        known = self.judge.agents.keys() | self.drains.keys() | self._saved.keys()
        gone = [name for name in known if published.state.objects.get(_key(name)) is None]
        if not gone or not published.confirmed:
            return
        await self._store.forget_seen(gone)
        for name in gone:
            self.judge.forget(name)
            self.drains.pop(name, None)
            self._saved.pop(name, None)
            self._unsaved.discard(name)
            self._hosts.pop(name, None)

    async def _end_drains(self) -> None:
        now = self._clock()
        for name in [name for name, one in self.drains.items() if one.until is not None and now >= one.until]:
            await self._end_drain(name, "gets requests again: the time for which it was drained is over")

    # --- what people are told -----------------------------------------------------------------------------------

    def _tell_silence(self) -> None:
        for name in self.judge.silent(self._monotonic()):
            if name not in self._unknown:
                self._unknown.add(name)
                text = "has not been heard for longer than its time-out; its endpoints are probed from here"
                self._note("AgentUnknown", "warning", name, text)

    def _tell_change(self, change: Change) -> None:
        self._unsaved.add(change.agent)
        self.on_change(change)
        whose = "" if change.deployment is None else f" of {'/'.join(change.deployment)}"
        if change.is_out:
            text = f"port {change.port}{whose} gets no requests any more: {_WHY[change.verdict]}"
            self._note("EndpointOut", "warning", change.agent, text)
        else:
            self._note("EndpointBack", "info", change.agent, f"port {change.port}{whose} gets requests again")

    def _note(self, kind: str, severity: Severity, agent: str, message: str, by: str = "") -> None:
        self._notices.append(Event(self._clock(), kind, severity, f"agent/{agent}", message, actor=by))


def reason_of(endpoint: Endpoint) -> str:
    """Say why an endpoint gets no requests; empty where it does."""
    if not endpoint.is_out:
        return ""
    return _WHY.get(endpoint.verdict, "it went out too often to come back at once")


def _same(one: AgentPlacements | None, other: AgentPlacements | None) -> bool:
    return (one or AgentPlacements()) == (other or AgentPlacements())


def _place(team: str, name: str, port: int) -> Place:
    deployment: Deployment | None = (team, name) if team else None
    return deployment, port


def _thumbprint(state: State, name: str) -> str | None:
    agent = state.objects.get(_key(name))
    return agent.spec.identity.thumbprint if isinstance(agent, Agent) and agent.spec.identity is not None else None


def _key(name: str) -> ObjectKey:
    return ObjectKey("Agent", "", name)
