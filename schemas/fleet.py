"""The fleet: domain, entry points, teams and the rules that protect them (``fleet.yaml``)."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.base import EMPTY, Document, Model
from schemas.images import ImagePattern
from schemas.names import (
    AgeRecipient,
    Duration,
    EntryPointName,
    Hostname,
    HostPattern,
    HttpsUrl,
    LabelKey,
    LabelValue,
    MailAddress,
    Name,
    Port,
    seconds,
)
from schemas.notifications import Notifications


class EntryPoints(Model):
    """The names that Traefik's static configuration gives its entry points."""

    http: EntryPointName = "web"
    https: EntryPointName = "websecure"
    mongodb: EntryPointName = "mongodb"
    tcp: Annotated[dict[Name, EntryPointName], Field(max_length=64)] = EMPTY
    """Further TCP entry points that routes of type tcp may name: name in the route → name in Traefik."""


class PortRange(Model):
    """Ports ``first`` to ``last``, both included."""

    first: Port
    last: Port

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.first > self.last:
            raise ValueError(f"the first port, {self.first}, is above the last, {self.last}")
        return self


class Team(Model):
    """What one team may use. It owns ``routes/<name>``, ``deployments/<name>`` and ``secrets/<name>``."""

    name: Name
    hostnames: Annotated[tuple[HostPattern, ...], Field(max_length=256)] = ()
    """Hosts that routes of the team may claim; ``*.parent`` grants one further label."""
    agents: Annotated[tuple[Name, ...], Field(max_length=10_000)] = ()
    """Agents that the team may use, by name."""
    agent_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = EMPTY
    """Further agents that the team may use: those that carry all of these labels."""
    ports: Annotated[tuple[PortRange, ...], Field(max_length=64)] = (PortRange(first=1024, last=65535),)
    """Ports of agents that backends and deployments of the team may use."""
    images: Annotated[tuple[ImagePattern, ...], Field(max_length=256)] | None = None
    """Images that deployments of the team may run. Without it any."""


class Registration(Model):
    """How an enrolment reaches the repository."""

    mode: Literal["commit", "pull-request"] = "commit"
    agents_per_hour: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Enrolments accepted in an hour; more are answered 429."""


class Changes(Model):
    """How a change that a person makes by the API or the dashboard reaches the repository."""

    mode: Literal["commit", "pull-request"] = "commit"
    """commit: onto the branch; pull-request: onto a branch of its own, that somebody merges."""


class DeletionGuard(Model):
    """A plan that deletes more than ``percent`` of at least ``minimum`` objects waits for a person."""

    percent: Annotated[int, Field(ge=0, le=100)] = 30
    minimum: Annotated[int, Field(ge=1)] = 10


class Signatures(Model):
    """Which commits must carry a signature by a key that ``serve`` was given."""

    mode: Literal["none", "head", "strict"] = "none"
    """none: no check; head: the newest commit; strict: each commit since the published one."""


class Commands(Model):
    """What people may do with what runs on agents, beyond looking at its log and restarting it."""

    exec: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()
    """Teams in whose deployments programs may be run by who has the scope ``exec``. Agents refuse it for others too."""


PeopleGroup = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
"""As the identity provider names it."""


class GroupGrant(Model):
    """What people of a group of the identity provider may do: what a role may, or what members of a team may."""

    group: PeopleGroup
    """As the provider writes it in the claim; letters count as they are."""
    role: Literal["viewer", "operator", "administrator"] | None = None
    """viewer: look at everything; operator: run and change the fleet, but this file; administrator: everything."""
    team: Name | None = None
    """Members look at everything, and run and change what is this team's."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.role is None) == (self.team is None):
            raise ValueError(f'access gives group "{self.group}" either a role or a team')
        return self


class Access(Model):
    """Who may what, of those who log in with the identity provider. It counts from the next request on."""

    groups: Annotated[tuple[GroupGrant, ...], Field(max_length=1000)] = ()
    """Who is in several groups may what any of them may; who is in none may not log in."""


class AgentRoutes(Model):
    """Hosts for which agents may have routes made by themselves, to deployments of ``team`` that run on them."""

    team: Name
    hostnames: Annotated[tuple[HostPattern, ...], Field(min_length=1, max_length=256)]
    """They must be the team's as well; ``*.parent`` grants one further label."""
    agents: Annotated[tuple[Name, ...], Field(max_length=10_000)] = ()
    """Only these agents; without them every agent on which the team deploys."""


class Defaults(Model):
    """What objects get that do not say otherwise."""

    health_interval: Duration = "10s"
    heartbeat_interval: Duration | None = None
    """How often agents say that they are there, from 1s to 1h; they hear it when they connect. Without it as ``serve
    --heartbeat`` says."""

    @model_validator(mode="after")
    def _beats(self) -> Self:
        if self.heartbeat_interval is not None and not 1 <= seconds(self.heartbeat_interval) <= 3600:
            raise ValueError(f"heartbeatInterval {self.heartbeat_interval} is not between 1s and 1h")
        return self


class AcmeDirectory(Model):
    """An ACME server."""

    url: HttpsUrl
    """Of its directory (RFC 8555, 7.1.1)."""
    staging: HttpsUrl | None = None
    """Directory of its staging server: each set of names is tried there first, where a failure costs nothing."""


LETS_ENCRYPT: Final = AcmeDirectory(
    url="https://acme-v02.api.letsencrypt.org/directory",
    staging="https://acme-staging-v02.api.letsencrypt.org/directory",
)


class Acme(Model):
    """Where certificates of issuer acme come from. Keys of accounts and of DNS servers are not written here."""

    directories: Annotated[dict[Name, AcmeDirectory], Field(min_length=1, max_length=16)] = {
        "letsencrypt": LETS_ENCRYPT
    }
    directory: Name | None = None
    """The one that is meant where a certificate names none; needed where there are several."""
    email: MailAddress | None = None
    """Where the server may write to."""
    challenge: Literal["http-01", "dns-01"] | None = None
    """How names are proven; without it dns-01 for certificates with a wildcard and http-01 for the others."""
    terms_agreed: bool = False
    """The terms of service of these servers were read and are agreed to; most register nobody without."""

    @property
    def usual_directory(self) -> Name:
        """The name of the directory that is meant where a certificate names none."""
        return self.directory or next(iter(self.directories))


class FleetSpec(Model):
    domain: Hostname
    """Base domain: apps answer at ``<app>.app.<domain>``, databases at ``<agent>.mongodb.<domain>``."""
    entry_points: EntryPoints = EntryPoints()
    teams: Annotated[tuple[Team, ...], Field(max_length=1000)] = ()
    registration: Registration = Registration()
    changes: Changes = Changes()
    deletion_guard: DeletionGuard = DeletionGuard()
    signatures: Signatures = Signatures()
    recipients: Annotated[tuple[AgeRecipient, ...], Field(max_length=16)] = ()
    """age recipients that secrets are sealed to: the control plane's, and one kept for an accident."""
    acme: Acme = Acme()
    defaults: Defaults = Defaults()
    commands: Commands = Commands()
    agent_routes: Annotated[tuple[AgentRoutes, ...], Field(max_length=1000)] = ()
    """Without it agents may ask for no routes."""
    access: Access = Access()
    """Without it nobody may log in with the identity provider."""
    notifications: Notifications = Notifications()

    @model_validator(mode="after")
    def _teams_once(self) -> Self:
        seen: set[str] = set()
        for team in self.teams:
            if team.name in seen:
                raise ValueError(f'team "{team.name}" is listed twice')
            seen.add(team.name)
        return self

    @model_validator(mode="after")
    def _grants_to_teams(self) -> Self:
        teams = {team.name for team in self.teams}
        for what, names in (
            ("commands.exec", self.commands.exec),
            ("agentRoutes", tuple(grant.team for grant in self.agent_routes)),
            ("access.groups", tuple(grant.team for grant in self.access.groups if grant.team is not None)),
        ):
            for name in names:
                if name not in teams:
                    raise ValueError(f'{what} names team "{name}", which is not listed under teams')
        return self

    @model_validator(mode="after")
    def _one_directory_is_meant(self) -> Self:
        named, known = self.acme.directory, self.acme.directories
        if named is None and len(known) > 1:
            raise ValueError("acme has several directories; name the usual one in acme.directory")
        if named is not None and named not in known:
            raise ValueError(f'acme.directory "{named}" is not one of acme.directories')
        return self


class Fleet(Document):
    """The one object that everything else depends on."""

    kind: Literal["Fleet"]
    spec: FleetSpec
