"""Objects in service by key, with the questions that rules and compile steps ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from reconciler.desired.claims import ClaimIndex, references_of
from reconciler.desired.coverage import certificate_of
from reconciler.desired.finding import did_you_mean
from reconciler.desired.lookup import SecretUnavailable
from schemas.agent import Agent
from schemas.deployment import Deployment, PortMapping
from schemas.fleet import Fleet, Team
from schemas.middleware import ServiceAddress
from schemas.names import LabelKey, LabelValue
from schemas.objects import FLEET_KEY, AnyObject, ObjectKey
from schemas.route import Backend, Route
from schemas.secret import Secret

OpenSecret = Callable[[str], str]
"""Armoured age file → clear value; raises :class:`SecretUnavailable`."""


MAX_GUESSES: Final = 100
"""Different wrong words for which a view looks for a similar name: each costs milliseconds in a large fleet."""
MAX_COMPARED: Final = 500
NOWHERE: Final[Mapping[ObjectKey, tuple[str, ...]]] = {}


def sealed_for_somebody_else(_: str) -> str:
    """Open nothing: for commands that have no key, such as ``validate`` in CI."""
    raise SecretUnavailable("this command has no key to open secrets with")


class View:
    """Implements :class:`reconciler.desired.lookup.Lookup` over mappings that may change under it.

    ``selected`` says for deployments in service that choose their agents by label which ones they chose; for others
    the choice is made anew, and of cordoned agents it takes those where the deployment is already. Agents and fleet
    must be settled before the first question about labels or teams.
    """

    def __init__(
        self,
        objects: Mapping[ObjectKey, AnyObject],
        open_sealed: OpenSecret,
        selected: Mapping[ObjectKey, tuple[str, ...]] = NOWHERE,
        claims: ClaimIndex | None = None,
    ) -> None:
        self._objects = objects
        self._claims = ClaimIndex() if claims is None else claims
        self._open = open_sealed
        self._served_selections = selected
        self.before: View | None = None
        """What is in service until now; None where nothing is, or nobody knows."""
        self._agents: tuple[Agent, ...] | None = None
        self._cordoned: frozenset[str] = frozenset()
        self._teams: dict[str, Team] | None = None
        self._hosts: dict[str, frozenset[str]] = {}
        self._granted: dict[str, frozenset[str]] = {}
        self._selections: dict[tuple[str, tuple[tuple[LabelKey, LabelValue], ...]], tuple[str, ...]] = {}
        self._guesses: dict[tuple[str, str, str], str] = {}

    def get(self, key: ObjectKey) -> AnyObject | None:
        return self._objects.get(key)

    def similar_name(self, key: ObjectKey) -> str:
        """Return ``Did you mean …?`` for a name that does not exist, or an empty string."""
        question = key.kind, key.team, key.name
        if question not in self._guesses:
            if len(self._guesses) >= MAX_GUESSES:
                return ""
            names = [one.name for one in self._objects if one.kind == key.kind and one.team == key.team]
            if len(names) > MAX_COMPARED:
                ends = key.name[:2], key.name[-2:]
                names = [one for one in names if one[:2] == ends[0] or one[-2:] == ends[1]][:MAX_COMPARED]
            self._guesses[question] = did_you_mean(key.name, names)
        return self._guesses[question]

    @property
    def fleet(self) -> Fleet:
        found = self._objects[FLEET_KEY]
        assert isinstance(found, Fleet)
        return found

    def team(self, name: str) -> Team | None:
        if self._teams is None:
            self._teams = {team.name: team for team in self.fleet.spec.teams}
        return self._teams.get(name)

    def hosts_granted(self, team: Team) -> frozenset[str]:
        """Return the host patterns of a team, for :func:`reconciler.desired.claims.covered`."""
        found = self._hosts.get(team.name)
        if found is None:
            found = self._hosts[team.name] = frozenset(team.hostnames)
        return found

    @property
    def every_host_granted(self) -> frozenset[str]:
        """The host patterns of all teams."""
        found = self._hosts.get("")
        if found is None:
            found = self._hosts[""] = frozenset(host for team in self.fleet.spec.teams for host in team.hostnames)
        return found

    def certificate_of(self, host: str) -> str | None:
        """Name the certificate that serves a host. Certificates must be settled before."""
        return certificate_of(host, self._claims, self.fleet)

    def agent(self, name: str) -> Agent | None:
        found = self._objects.get(ObjectKey("Agent", "", name))
        return found if isinstance(found, Agent) else None

    def deployment(self, team: str, name: str) -> Deployment | None:
        found = self._objects.get(ObjectKey("Deployment", team, name))
        return found if isinstance(found, Deployment) else None

    def secret(self, team: str, name: str) -> Secret | None:
        found = self._objects.get(ObjectKey("Secret", team, name))
        return found if isinstance(found, Secret) else None

    def may_use(self, team: Team, agent: Agent) -> bool:
        """Say whether the fleet grants the agent to the team, by name or by label."""
        names = self._granted.get(team.name)
        if names is None:
            names = self._granted[team.name] = frozenset(team.agents)
        if agent.metadata.name in names:
            return True
        wanted = team.agent_selector
        return bool(wanted) and wanted.items() <= agent.metadata.labels.items()

    def agents_of(self, team: str, deployment: Deployment) -> tuple[Agent, ...]:
        names = self.agent_names_of(team, deployment)
        return tuple(agent for name in names if (agent := self.agent(name)) is not None)

    def agent_names_of(self, team: str, deployment: Deployment) -> tuple[str, ...]:
        """Names of the agents that a deployment runs on: the listed ones, and those that its selector picks."""
        selector = deployment.spec.agent_selector
        if not selector:
            return tuple(sorted(deployment.spec.agents))
        key = ObjectKey("Deployment", team, deployment.metadata.name)
        if key in self._served_selections:
            return self._served_selections[key]
        question = (team, tuple(sorted(selector.items())))
        if question not in self._selections:
            self._selections[question] = self._select(team, selector)
        chosen = {*deployment.spec.agents, *self._selections[question]}
        closed = self._cordoned.intersection(self._selections[question]).difference(deployment.spec.agents)
        if closed and self.before is not None:
            chosen -= closed - self.before.agents_used(key)
        return tuple(sorted(chosen))

    def _select(self, team: str, selector: Mapping[LabelKey, LabelValue]) -> tuple[str, ...]:
        grant = self.team(team)
        if grant is None:
            return ()
        if self._agents is None:
            self._agents = tuple(found for found in self._objects.values() if isinstance(found, Agent))
            self._cordoned = frozenset(one.metadata.name for one in self._agents if one.spec.state == "cordoned")
        return tuple(
            agent.metadata.name
            for agent in self._agents
            if selector.items() <= agent.metadata.labels.items() and self.may_use(grant, agent)
        )

    def agents_behind(self, key: ObjectKey, found: AnyObject) -> tuple[str, ...]:
        """Names of the agents on which a deployment runs, or which are behind a route's backends."""
        if isinstance(found, Deployment):
            return self.agent_names_of(key.team, found)
        if not isinstance(found, Route):
            return ()
        names: dict[str, None] = {}
        for backend in found.spec.backends:
            if backend.agent is not None:
                names[backend.agent] = None
            elif (deployment := self.deployment(key.team, backend.deployment or "")) is not None:
                names.update(dict.fromkeys(self.agent_names_of(key.team, deployment)))
        return tuple(names)

    def agents_used(self, key: ObjectKey) -> frozenset[str]:
        """Names of the agents on which an object runs or which it leads to; empty where there is no such object."""
        found = self.get(key)
        if found is None:
            return frozenset()
        named = (one.key.name for one in references_of(key, found) if one.key.kind == "Agent")
        return frozenset((*named, *self.agents_behind(key, found)))

    def open_secret(self, team: str, name: str, key: str) -> str:
        found = self.secret(team, name)
        if found is None or key not in found.spec.sealed:
            raise SecretUnavailable(f'secret "{name}" of team "{team}" has no key "{key}"')
        return self._open(found.spec.sealed[key])


def port_of(target: Backend | ServiceAddress, deployment: Deployment) -> PortMapping | None:
    """Return the mapped port that a backend means, None where the deployment has no such port or several."""
    ports = deployment.spec.ports
    if target.port_name is not None:
        ports = tuple(mapping for mapping in ports if mapping.name == target.port_name)
    elif target.port is not None:
        ports = tuple(mapping for mapping in ports if mapping.container == target.port)
    return ports[0] if len(ports) == 1 else None
