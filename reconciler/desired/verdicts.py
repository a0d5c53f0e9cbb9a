"""Which endpoints may get requests: what agents tell of them, what probes find, and what operators say.

  told     a connected agent says for each of its deployments how it is and at which port it answers
  silent   an agent that was there and has said nothing for longer than its time-out: what it told last counts no more;
           connecting to the endpoints decides, so that an agent process that is down takes no app along
  drained  an operator keeps requests away from the agent
  gone     the agent is deleted or locked out

An agent that was never there, or that tells nothing, has its endpoints as declared. Between a lost connection and the
time-out, and until a returning agent has told something, everything stays as it was judged last.

An endpoint goes out at once, and comes back at once the first time. One that keeps changing has to be well for longer
and longer (:meth:`Limits.hold`), so fronts are changed every few seconds at most. A healthy instance at another port
comes at once: it is another instance.

Everything here is computed from arguments. ``now`` is monotonic, in seconds; nothing is judged before it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from reconciler.desired.observed import GONE, AgentPlacements, Placement, Placements, Share
from schemas.observation import DeploymentObservation

Deployment = tuple[str, str]
"""Team and name."""
Place = tuple[Deployment | None, int]
"""An endpoint of an agent: whose it is (None: of nothing that the agent tells of), and its declared port."""
Verdict = Literal["healthy", "unhealthy", "starting", "stopped", "unknown", "unreachable"]
Presence = Literal["Connected", "Silent", "Unknown", "Drained"]
"""``Silent``: not connected, and its time-out has not passed; ``Unknown``: it has, or the agent was never there."""
Declared = Callable[[str, Deployment], frozenset[int]]
"""Agent and deployment → the host ports that the deployment has there, as git says; empty where it does not run."""

FIRST_PORT: Final = 20_000
LAST_PORT: Final = 29_999
"""Besides the declared port itself, the only ones at which an agent may say that a deployment answers."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, but for ``probes``."""

    leaving: float = 10.0
    """How long what is out still stands in fronts, with weight 0."""
    first_hold: float = 3.0
    longest_hold: float = 60.0
    calm: float = 60.0
    """After so long in service, what was before is forgotten."""
    grace: float = 10.0
    """How long a returning agent may take to say that it tells what it sees."""
    probes: int = 2
    """Connections in a row that fail or succeed before that counts."""

    def hold(self, outs: int) -> float:
        """Return for how long an endpoint must be well that went out so many times."""
        return 0.0 if outs <= 1 else min(self.longest_hold, self.first_hold * 2.0 ** min(outs - 2, 16))


class Drain(NamedTuple):
    """``until``: monotonic; None: until somebody ends it."""

    since: float
    until: float | None = None


class Change(NamedTuple):
    """An endpoint went out of service, or came back."""

    agent: str
    port: int
    deployment: Deployment | None
    is_out: bool
    verdict: Verdict


@dataclass(slots=True)
class Endpoint:
    """``declared``: the port that git knows; ``port``: the one that answers."""

    declared: int
    deployment: Deployment | None
    port: int
    since: float
    """When it went out, or came in."""
    verdict: Verdict = "unknown"
    is_out: bool = False
    outs: int = 0
    """Times that it went out without a calm in between."""
    well_since: float | None = None
    tries: int = 0
    """Connections in a row: how many succeeded, below zero how many failed."""

    def judge(self, verdict: Verdict, now: float, limits: Limits, *, at_once: bool = False) -> bool:
        """Take note of a verdict; return whether the endpoint went out or came back by it."""
        self.verdict = verdict
        if verdict == "unknown":
            return False
        if verdict != "healthy":
            self.well_since = None
            if self.is_out:
                return False
            self.outs = 1 if now - self.since >= limits.calm else self.outs + 1
            self.is_out, self.since = True, now
            return True
        if not self.is_out:
            return False
        if self.well_since is None:
            self.well_since = now
        if not at_once and now < self.well_since + limits.hold(self.outs):
            return False
        self.is_out, self.since, self.well_since = False, now, None
        return True

    def share(self, now: float, limits: Limits) -> Share:
        return "full" if not self.is_out else "none" if now < self.since + limits.leaving else "gone"

    def next(self, now: float, limits: Limits) -> float | None:
        """Return when it will stand otherwise if nothing happens."""
        times = [self.since + limits.leaving] if self.is_out else []
        if self.well_since is not None:
            times.append(self.well_since + limits.hold(self.outs))
        return min((one for one in times if one > now), default=None)


class Judged(NamedTuple):
    """What followed last of what is seen of an agent, and when it has to be judged again if nothing happens."""

    declared: Declared
    answers: tuple[frozenset[int], ...]
    """What ``declared`` said of each deployment that the agent tells of."""
    placements: AgentPlacements
    due: float | None


@dataclass(slots=True)
class Seen:
    """One agent."""

    heard: float
    """When it said something last; after a restart, when that was."""
    came: bool = True
    """It was connected at some time; an agent that never was is not judged."""
    connected: bool = False
    connected_at: float = 0.0
    tells: bool = False
    """It said that it tells what it sees."""
    is_fresh: bool = False
    """What it told is of this connection."""
    told: Mapping[Deployment, DeploymentObservation] = field(default_factory=dict)
    endpoints: dict[Place, Endpoint] = field(default_factory=dict)
    drain: Drain | None = None
    judged: Judged | None = None
    """None: something was heard since."""

    def is_silent(self, now: float, timeout: float) -> bool:
        return self.came and not self.connected and now >= self.heard + timeout

    def presence(self, now: float, timeout: float) -> Presence:
        if self.drain is not None:
            return "Drained"
        if self.connected:
            return "Connected"
        return "Unknown" if not self.came or self.is_silent(now, timeout) else "Silent"


class Judge:
    """Everything that is known of agents, by name. Calls are plain; nothing is awaited."""

    def __init__(self, limits: Limits = Limits(), *, timeout: float = 35.0) -> None:
        self.limits = limits
        self.timeout = timeout
        """Seconds without a word after which an agent that is not connected counts as silent."""
        self.agents: dict[str, Seen] = {}
        self.changes: list[Change] = []
        """What happened since somebody emptied the list."""

    # --- what is heard ------------------------------------------------------------------------------------------

    def restore(
        self, agent: str, told: Iterable[DeploymentObservation], out: Mapping[Place, float], now: float
    ) -> None:
        """Go on from what was known before a restart. ``out``: which endpoints were out of service, and since when."""
        seen = self.known(agent, now)
        seen.told = {(one.team, one.name): one for one in told}
        for deployment, one in seen.told.items():
            for port in one.ports:
                seen.endpoints[deployment, port.declared] = Endpoint(port.declared, deployment, port.actual, now)
        for place, since in out.items():
            endpoint = seen.endpoints.setdefault(place, Endpoint(place[1], place[0], place[1], now))
            endpoint.is_out, endpoint.outs, endpoint.since = True, 1, since

    def known(self, agent: str, now: float) -> Seen:
        """Return what is known of an agent that was there at some time; its time-out begins now where it is new."""
        seen = self.agents.get(agent)
        if seen is None:
            seen = self.agents[agent] = Seen(now)
        return seen

    def connected(self, agent: str, now: float) -> None:
        seen = self.known(agent, now)
        seen.heard = seen.connected_at = now
        seen.came, seen.connected, seen.is_fresh, seen.tells = True, True, False, False
        seen.judged = None
        self._forget_probes(agent, seen)

    def tells(self, agent: str, now: float) -> None:
        """Note that the agent tells what it sees: until it does, what it told before its return holds."""
        if agent in self.agents:
            self.agents[agent].tells, self.agents[agent].judged = True, None
            self.heard(agent, now)

    def heard(self, agent: str, now: float) -> None:
        if agent in self.agents:
            self.agents[agent].heard = now

    def disconnected(self, agent: str) -> None:
        if agent in self.agents:
            self.agents[agent].connected, self.agents[agent].judged = False, None

    def told(self, agent: str, deployments: Iterable[DeploymentObservation], now: float) -> None:
        """Take what the agent tells for the whole truth; of two entries of one deployment the last one counts.

        Of what it cannot see now it tells no ports; those it told before are kept, across a restart as well.
        """
        seen = self.agents.get(agent)
        if seen is not None:
            seen.heard, seen.tells, seen.is_fresh = now, True, True
            before = seen.told
            seen.told = {
                (one.team, one.name): _with_former_ports(one, before.get((one.team, one.name))) for one in deployments
            }
            seen.judged = None

    def probed(self, agent: str, declared: int, now: float, *, answers: bool) -> None:
        """Take note of what connecting to an endpoint of a silent agent gave."""
        seen = self.agents.get(agent)
        if seen is None or not seen.is_silent(now, self.timeout):
            return
        found = [one for (_, port), one in seen.endpoints.items() if port == declared]
        if not found:
            found = [Endpoint(declared, None, declared, seen.heard)]
            seen.endpoints[None, declared] = found[0]
        for one in found:
            one.tries = max(one.tries, 0) + 1 if answers else min(one.tries, 0) - 1
            if abs(one.tries) >= self.limits.probes:
                self._judge(agent, one, "healthy" if answers else "unreachable", now)
                one.verdict = "unknown" if answers else "unreachable"
                seen.judged = None

    def drain(self, agent: str, drain: Drain | None, now: float) -> None:
        """Keep requests away from an agent, or no longer."""
        seen = self.agents.get(agent)
        if seen is None:
            seen = self.agents[agent] = Seen(now, came=False)
        seen.drain, seen.judged = drain, None

    def forget(self, agent: str) -> None:
        self.agents.pop(agent, None)

    # --- what follows -------------------------------------------------------------------------------------------

    def silent(self, now: float) -> tuple[str, ...]:
        """Name the agents whose endpoints should be probed."""
        return tuple(sorted(name for name, seen in self.agents.items() if seen.is_silent(now, self.timeout)))

    def actual(self, agent: str, declared: int) -> int:
        """Return the port at which an endpoint answers, as far as is known."""
        seen = self.agents.get(agent)
        ports = (one.port for one in seen.endpoints.values() if one.declared == declared) if seen is not None else ()
        return next(iter(ports), declared)

    def placements(self, declared: Declared, gone: Iterable[str], now: float) -> Placements:
        """Judge by now, and return what fronts are to be told. ``gone``: agents that are deleted or locked out.

        Only what was heard of since the last call, is due, or has other ports in git, is judged.
        """
        found: dict[str, AgentPlacements] = {}
        for name, seen in self.agents.items():
            known = seen.judged
            if known is not None and known.declared is not declared and known.answers == _answers(name, seen, declared):
                known = seen.judged = known._replace(declared=declared)
            if known is None or known.declared is not declared or (known.due is not None and now >= known.due):
                placed = self._placements(name, declared, now)
                due = min(self._times(seen, now), default=None)
                known = seen.judged = Judged(declared, _answers(name, seen, declared), placed, due)
            if known.placements.ports or known.placements.share != "full":
                found[name] = known.placements
        return found | dict.fromkeys(gone, GONE)

    def next(self, now: float) -> float | None:
        """Return when something will stand otherwise if nothing happens; ``now`` where something was not judged yet."""
        times = (now if seen.judged is None else seen.judged.due for seen in self.agents.values())
        return min((one for one in times if one is not None), default=None)

    def _times(self, seen: Seen, now: float) -> Iterator[float]:
        times = [one.next(now, self.limits) for one in seen.endpoints.values()]
        if not seen.connected and seen.came:
            times.append(seen.heard + self.timeout)
        elif not seen.is_fresh and seen.told:
            times.append(seen.connected_at + self.limits.grace)
        if seen.drain is not None:
            times += [seen.drain.since + self.limits.leaving, seen.drain.until]
        yield from (one for one in times if one is not None and one > now)

    def _placements(self, name: str, declared: Declared, now: float) -> AgentPlacements:
        seen = self.agents[name]
        if seen.connected and not seen.is_fresh and not seen.tells and now >= seen.connected_at + self.limits.grace:
            seen.told = {}  # it came back in a version that tells nothing
        self._forget_untold(name, seen)
        ports: dict[int, Placement] = {}
        for deployment in seen.told:
            for port in sorted(declared(name, deployment)):
                one = self._endpoint(name, seen, (deployment, port), now)
                if one is not None:
                    ports[port] = Placement(one.port, one.share(now, self.limits))
        for (probed, port), one in seen.endpoints.items():
            if probed is None and port not in ports:
                ports[port] = Placement(one.port, one.share(now, self.limits))
        differing = {port: one for port, one in ports.items() if one != (port, "full")}
        return AgentPlacements(differing, _share(seen, now, self.limits))

    def _endpoint(self, name: str, seen: Seen, key: tuple[Deployment, int], now: float) -> Endpoint | None:
        """Bring one endpoint up to date. None: what the agent tells says nothing of it."""
        deployment, declared = key
        told = seen.told[deployment]
        actual = {one.declared: one.actual for one in told.ports}
        if not is_possible(declared, actual.get(declared, declared)):
            return None
        one = seen.endpoints.get(key)
        if one is None:
            one = seen.endpoints[key] = Endpoint(declared, deployment, actual.get(declared, declared), now)
        if not seen.is_fresh or seen.is_silent(now, self.timeout):
            return one
        one.tries = 0
        moves = declared in actual and actual[declared] != one.port
        one.port = actual.get(declared, one.port)
        is_there = told.health != "healthy" or declared in actual  # else an older version serves, without this port
        self._judge(name, one, told.health if is_there else "starting", now, at_once=moves)
        return one

    def _judge(self, agent: str, one: Endpoint, verdict: Verdict, now: float, *, at_once: bool = False) -> None:
        if one.judge(verdict, now, self.limits, at_once=at_once):
            self.changes.append(Change(agent, one.declared, one.deployment, one.is_out, verdict))

    def _forget_untold(self, agent: str, seen: Seen) -> None:
        """What the agent tells nothing of any more is as declared."""
        for key, one in list(seen.endpoints.items()):
            if key[0] is not None and key[0] not in seen.told:
                self._drop(agent, seen, key, one)

    def _forget_probes(self, agent: str, seen: Seen) -> None:
        """What only probes said counts no more once the agent is back."""
        for key, one in list(seen.endpoints.items()):
            if key[0] is None:
                self._drop(agent, seen, key, one)

    def _drop(self, agent: str, seen: Seen, key: Place, one: Endpoint) -> None:
        del seen.endpoints[key]
        if one.is_out:
            self.changes.append(Change(agent, one.declared, one.deployment, False, "unknown"))


def _with_former_ports(one: DeploymentObservation, before: DeploymentObservation | None) -> DeploymentObservation:
    if one.health != "unknown" or one.ports or before is None or not before.ports:
        return one
    return one.model_copy(update={"ports": before.ports})


def is_possible(declared: int, actual: int) -> bool:
    """Say whether a deployment with that declared port may answer at ``actual``."""
    return actual == declared or FIRST_PORT <= actual <= LAST_PORT


def _answers(name: str, seen: Seen, declared: Declared) -> tuple[frozenset[int], ...]:
    return tuple(declared(name, deployment) for deployment in seen.told)


def _share(seen: Seen, now: float, limits: Limits) -> Share:
    drain = seen.drain
    if drain is None or (drain.until is not None and now >= drain.until):
        return "full"
    return "none" if now < drain.since + limits.leaving else "gone"
