"""What must hold between objects, as a list of small pure rules.

A rule takes the object and a view of everything else and yields findings. It opens nothing and decides nothing: an
object with a finding of severity ``error`` is quarantined by :mod:`reconciler.desired.settle`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from reconciler.desired.claims import references_of
from reconciler.desired.finding import FieldPath, Finding, did_you_mean
from reconciler.desired.view import View, port_of
from schemas.certificate import Certificate
from schemas.deployment import Deployment
from schemas.fleet import Team
from schemas.middleware import ServiceAddress
from schemas.names import covers
from schemas.objects import TEAM_KINDS, AnyObject, ObjectKey
from schemas.route import Backend, Route

Rule = Callable[[ObjectKey, AnyObject, View], Iterator[Finding]]
_WHAT: Final = {"Agent": "agent", "Deployment": "deployment", "Secret": "secret", "Certificate": "certificate"}


def check(key: ObjectKey, found: AnyObject, view: View) -> list[Finding]:
    """Run every rule. Rules that need the team are skipped where the fleet does not know it."""
    if key.kind in TEAM_KINDS and view.team(key.team) is None:
        names = [team.name for team in view.fleet.spec.teams]
        hint = (
            did_you_mean(key.team, names) or f"Add the team to fleet.yaml, or move the file. Known: {', '.join(names)}."
        )
        return [Finding(key.path, "unknown-team", f'the fleet has no team "{key.team}"', hint)]
    return [finding for rule in RULES for finding in rule(key, found, view)]


def references_exist(key: ObjectKey, found: AnyObject, view: View) -> Iterator[Finding]:
    """Everything that is named exists."""
    for reference in references_of(key, found):
        if view.get(reference.key) is not None:
            continue
        what = _WHAT[reference.key.kind]
        subject = "backend" if "backends" in reference.field else "the document"
        hint = did_you_mean(reference.key.name, view.names(reference.key.kind, reference.key.team))
        yield Finding(
            key.path,
            f"unknown-{what}",
            f'{subject} names {what} "{reference.key.name}", which does not exist.',
            hint or f"Add {reference.key.path}, or name another one.",
            reference.field,
        )


def agents_are_granted(key: ObjectKey, found: AnyObject, view: View) -> Iterator[Finding]:
    """A team uses only the agents that the fleet grants it."""
    team = view.team(key.team)
    if team is None:
        return
    for reference in references_of(key, found):
        agent = view.agent(reference.key.name) if reference.key.kind == "Agent" else None
        if agent is not None and not view.may_use(team, agent):
            yield Finding(
                key.path,
                "agent-not-granted",
                f'team "{key.team}" may not use agent "{reference.key.name}".',
                f"Grant it in fleet.yaml under teams, {key.team}, agents, or use another agent.",
                reference.field,
            )


def hosts_are_owned(key: ObjectKey, found: AnyObject, view: View) -> Iterator[Finding]:
    """A route claims only hosts of its team. Hosts of databases follow from the agent and need no grant."""
    team = view.team(key.team)
    if not isinstance(found, Route) or team is None or found.spec.type == "mongodb":
        return
    default = () if found.spec.type == "tcp" else (f"{found.metadata.name}.app.{view.fleet.spec.domain}",)
    for index, host in enumerate(found.spec.hostnames or default):
        if any(covers(pattern, host) for pattern in team.hostnames):
            continue
        granted = ", ".join(team.hostnames) or "none"
        field: FieldPath = ("spec", "hostnames", index) if found.spec.hostnames else ("spec",)
        yield Finding(
            key.path,
            "host-not-owned",
            f'team "{key.team}" does not own "{host}".',
            f"It owns: {granted}. Grant the host in fleet.yaml, or use one of these.",
            field,
        )


def backends_have_ports(key: ObjectKey, found: AnyObject, view: View) -> Iterator[Finding]:
    """Each backend leads to one port that the team may use."""
    team = view.team(key.team)
    if not isinstance(found, Route) or team is None:
        return
    for target, field in _targets(found):
        if target.agent is not None and target.port is not None:
            yield from _port_granted(key, team, target.port, (*field, "port"))
            continue
        deployment = view.deployment(key.team, target.deployment or "")
        if deployment is not None and port_of(target, deployment) is None:
            known = ", ".join(f"{port.name or '-'} ({port.container})" for port in deployment.spec.ports) or "none"
            text = f'deployment "{target.deployment}" has no single port that fits; it has: {known}.'
            yield Finding(key.path, "unknown-port", text, "Name one with port or portName.", field)


def _targets(route: Route) -> Iterator[tuple[Backend | ServiceAddress, FieldPath]]:
    for index, backend in enumerate(route.spec.backends):
        yield backend, ("spec", "backends", index)
    for index, middleware in enumerate(route.spec.middlewares):
        field: FieldPath = ("spec", "middlewares", index)
        if middleware.forward_auth is not None:
            yield middleware.forward_auth.address, (*field, "forwardAuth", "address")
        if middleware.maintenance is not None and middleware.maintenance.page is not None:
            yield middleware.maintenance.page, (*field, "maintenance", "page")


def _port_granted(key: ObjectKey, team: Team, port: int, field: FieldPath) -> Iterator[Finding]:
    if not any(granted.first <= port <= granted.last for granted in team.ports):
        ranges = ", ".join(f"{granted.first}-{granted.last}" for granted in team.ports)
        text = f'team "{key.team}" may not use port {port}.'
        yield Finding(key.path, "port-not-granted", text, f"It may use {ranges} (fleet.yaml).", field)


def entry_point_exists(key: ObjectKey, found: AnyObject, view: View) -> Iterator[Finding]:
    """A TCP route names an entry point of the fleet."""
    if not isinstance(found, Route) or found.spec.entry_point is None:
        return
    points = view.fleet.spec.entry_points.tcp
    if found.spec.entry_point not in points:
        hint = did_you_mean(found.spec.entry_point, points) or f"Known: {', '.join(points) or 'none'} (fleet.yaml)."
        text = f'the fleet has no TCP entry point "{found.spec.entry_point}".'
        yield Finding(key.path, "unknown-entry-point", text, hint, ("spec", "entryPoint"))


def certificate_covers_host(key: ObjectKey, found: AnyObject, view: View) -> Iterator[Finding]:
    """A certificate that a route names covers each of its hosts."""
    if not isinstance(found, Route) or found.spec.tls.certificate is None:
        return
    certificate = view.get(ObjectKey("Certificate", "", found.spec.tls.certificate))
    if not isinstance(certificate, Certificate):
        return
    for host in found.spec.hostnames:
        if not any(covers(name, host) for name in certificate.spec.dns_names):
            text = f'certificate "{found.spec.tls.certificate}" does not cover "{host}".'
            hint = f"It covers: {', '.join(certificate.spec.dns_names)}."
            yield Finding(key.path, "certificate-does-not-cover", text, hint, ("spec", "tls", "certificate"))


def certificate_names_are_owned(key: ObjectKey, found: AnyObject, view: View) -> Iterator[Finding]:
    """A certificate carries only names of the fleet: below its domain, or owned by a team."""
    if not isinstance(found, Certificate):
        return
    domain = view.fleet.spec.domain
    granted = [pattern for team in view.fleet.spec.teams for pattern in team.hostnames]
    for index, name in enumerate(found.spec.dns_names):
        below = name.removeprefix("*.") == domain or name.endswith(f".{domain}")
        if not below and not any(covers(pattern, name) for pattern in granted):
            text = f'nobody in the fleet owns "{name}".'
            hint = f"Use names below {domain}, or grant the host to a team in fleet.yaml."
            yield Finding(key.path, "name-not-owned", text, hint, ("spec", "dnsNames", index))


def secret_keys_exist(key: ObjectKey, found: AnyObject, view: View) -> Iterator[Finding]:
    """The named key is in the named secret."""
    wanted: list[tuple[str, str, FieldPath]] = []
    if isinstance(found, Route):
        for index, middleware in enumerate(found.spec.middlewares):
            if middleware.basic_auth is not None:
                reference = middleware.basic_auth.secret
                field: FieldPath = ("spec", "middlewares", index, "basicAuth", "secret", "key")
                wanted.append((reference.name, reference.key, field))
    elif isinstance(found, Deployment):
        for index, env in enumerate(found.spec.secrets):
            wanted.append((env.secret, env.key, ("spec", "secrets", index, "key")))
        for index, user in enumerate(found.spec.mongodb.users if found.spec.mongodb else ()):
            field = ("spec", "mongodb", "users", index, "password", "key")
            wanted.append((user.password.name, user.password.key, field))
    for name, value_key, field in wanted:
        secret = view.secret(key.team, name)
        if secret is not None and value_key not in secret.spec.sealed:
            text = f'secret "{name}" has no key "{value_key}".'
            hint = did_you_mean(value_key, secret.spec.sealed) or f"It has: {', '.join(secret.spec.sealed)}."
            yield Finding(key.path, "unknown-secret-key", text, hint, field)


def deployment_fits_its_agents(key: ObjectKey, found: AnyObject, view: View) -> Iterator[Finding]:
    """Each agent can run the deployment, its ports are granted, and a selector selects somebody."""
    team = view.team(key.team)
    if not isinstance(found, Deployment) or team is None:
        return
    for index, mapping in enumerate(found.spec.ports):
        yield from _port_granted(key, team, mapping.host, ("spec", "ports", index, "host"))
    agents = view.agents_of(key.team, found)
    if not agents and not found.spec.agents:
        labels = ", ".join(f"{name}={value}" for name, value in found.spec.agent_selector.items())
        text = f'no agent of team "{key.team}" carries the labels {labels}; the deployment runs nowhere.'
        yield Finding(
            key.path, "selects-no-agent", text, "Label an agent.", ("spec", "agentSelector"), severity="warning"
        )
    field: FieldPath
    for agent in agents:
        if found.spec.type not in agent.spec.capabilities:
            name = agent.metadata.name
            able = ", ".join(agent.spec.capabilities) or "nothing"
            text = f'agent "{name}" cannot run type {found.spec.type}; it can run {able}.'
            listed = name in found.spec.agents
            field = ("spec", "agents", found.spec.agents.index(name)) if listed else ("spec", "agentSelector")
            hint = f"Add {found.spec.type} to its capabilities in {ObjectKey('Agent', '', name).path}, or move it."
            yield Finding(key.path, "agent-lacks-capability", text, hint, field)


RULES: Final[tuple[Rule, ...]] = (
    references_exist,
    agents_are_granted,
    hosts_are_owned,
    backends_have_ports,
    entry_point_exists,
    certificate_covers_host,
    certificate_names_are_owned,
    secret_keys_exist,
    deployment_fits_its_agents,
)
