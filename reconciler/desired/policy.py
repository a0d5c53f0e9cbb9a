"""What must hold between objects, as a list of small pure rules.

A rule takes the object and a view of everything else and yields findings. It opens nothing and decides nothing: an
object with a finding of severity ``error`` is quarantined by :mod:`reconciler.desired.settle`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from reconciler.desired.challenge_path import is_reserved
from reconciler.desired.claims import Reference, covered, hosts_of, references_of
from reconciler.desired.coverage import missing
from reconciler.desired.databases import database_rules
from reconciler.desired.finding import FieldPath, Finding, did_you_mean
from reconciler.desired.granted_images import images_not_granted
from reconciler.desired.plain_secrets import plain_secrets
from reconciler.desired.process_mounts import mounts_are_beside_the_system
from reconciler.desired.service_names import FIELD, may_name
from reconciler.desired.view import View, port_of
from schemas.agent import Agent
from schemas.certificate import Certificate
from schemas.deployment import Deployment
from schemas.fleet import Fleet, Team
from schemas.middleware import ServiceAddress
from schemas.objects import FLEET_PATH, TEAM_KINDS, AnyObject, Kind, ObjectKey
from schemas.problem import Severity
from schemas.route import Backend, Route

NAMED_KINDS: Final = {"Agent": "agent", "Deployment": "deployment", "Secret": "secret", "Certificate": "certificate"}


class Subject(NamedTuple):
    """The object that is judged. ``team`` is None for kinds that belong to no team."""

    key: ObjectKey
    object: AnyObject
    references: tuple[Reference, ...]
    team: Team | None


Rule = Callable[[Subject, View], Iterable[Finding]]


def check(
    key: ObjectKey, found: AnyObject, view: View, references: tuple[Reference, ...] | None = None
) -> list[Finding]:
    """Run every rule. Rules that need the team are skipped where the fleet does not know it.

    ``references`` are those of the object, for a caller who has them already.
    """
    team = view.team(key.team) if key.kind in TEAM_KINDS else None
    if team is None and key.kind in TEAM_KINDS:
        names = [one.name for one in view.fleet.spec.teams]
        hint = did_you_mean(key.team, names) or "Add the team to fleet.yaml, or move the file."
        return [Finding(key.path, "unknown-team", f'the fleet has no team "{key.team}"', hint)]
    subject = Subject(key, found, references_of(key, found) if references is None else references, team)
    return [finding for rule in RULES[key.kind] for finding in rule(subject, view)]


def check_fleet(fleet: Fleet) -> list[Finding]:
    """Check what the fleet alone can get wrong: entry points that serve two kinds of traffic would mix up owners."""
    points = fleet.spec.entry_points
    findings = []
    taken: dict[str, str] = {}
    named = [("http", points.http), ("https", points.https), ("mongodb", points.mongodb)]
    for field, name in [*named, *((f"tcp.{known}", name) for known, name in points.tcp.items())]:
        if name in taken and not (field.startswith("tcp.") and taken[name].startswith("tcp.")):
            where: FieldPath = ("spec", "entryPoints", *field.split(".", 1))
            text = f'entryPoints.{field} is "{name}", and so is entryPoints.{taken[name]}'
            hint = "Give each its own entry point: routes of one kind would take the other's requests."
            findings.append(Finding(FLEET_PATH, "entry-point-shared", text, hint, where))
        taken.setdefault(name, field)
    return findings


def references_are_good(subject: Subject, view: View) -> Iterator[Finding]:
    """Everything that is named exists, and a team uses only the agents that the fleet grants it."""
    path, team = subject.key.path, subject.team
    for target, field in subject.references:
        named = view.get(target)
        if named is None:
            what = NAMED_KINDS[target.kind]
            text = f'{_speaker(field)} names {what} "{target.name}", which does not exist.'
            hint = view.similar_name(target) or f"Add {target.path}, or name another one."
            yield Finding(path, f"unknown-{what}", text, hint, field)
        elif team is not None and isinstance(named, Agent) and not view.may_use(team, named):
            text = f'team "{team.name}" may not use agent "{target.name}".'
            hint = f"Grant it in fleet.yaml under teams, {team.name}, agents, or use another agent."
            yield Finding(path, "agent-not-granted", text, hint, field)


def agents_take_new_work(subject: Subject, view: View) -> Iterator[Finding]:
    """What is new goes to no cordoned agent; what is there already stays, in any version.

    A warning where nothing is in service, or nobody knows: then nobody can say what is new.
    """
    for target, field in subject.references:
        agent = view.get(target)
        if not isinstance(agent, Agent) or agent.spec.state != "cordoned":
            continue
        if view.before is None or target.name not in view.before.agents_used(subject.key):
            text = f'agent "{target.name}" is cordoned: it keeps what it has and takes nothing new.'
            hint = f"Use another agent, or set state: active in {target.path}."
            severity: Severity = "warning" if view.before is None else "error"
            yield Finding(subject.key.path, "agent-cordoned", text, hint, field, severity=severity)


def _speaker(field: FieldPath) -> str:
    """Return who names something, as the start of a sentence."""
    if "backends" in field:
        return "backend"
    return f"spec.{field[1]}"


def hosts_are_owned(subject: Subject, view: View) -> Iterator[Finding]:
    """A route claims only hosts of its team. Hosts of databases follow from the agent and need no grant."""
    route, team = subject.object, subject.team
    if not isinstance(route, Route) or team is None or route.spec.type == "mongodb":
        return
    granted = view.hosts_granted(team)
    for index, host in enumerate(hosts_of(route, view.fleet, ())):
        if covered(host, granted):
            continue
        field: FieldPath = ("spec", "hostnames", index) if route.spec.hostnames else ("spec",)
        text = f'team "{team.name}" does not own "{host}".'
        hint = f"It owns: {_some(team.hostnames)}. Grant the host in fleet.yaml, or use one of these."
        yield Finding(subject.key.path, "host-not-owned", text, hint, field)


def _some(words: Iterable[str]) -> str:
    """List at most ten words."""
    known = list(words)
    more = f" and {len(known) - 10} more" if len(known) > 10 else ""
    return ", ".join(known[:10]) + more if known else "none"


def paths_are_free(subject: Subject, view: View) -> Iterator[Finding]:
    """No route names the path at which ACME servers look for the control plane's answers."""
    del view
    route = subject.object
    for index, path in enumerate(route.spec.paths if isinstance(route, Route) else ()):
        if is_reserved(path):
            text = f'"{path.exact or path.prefix}" is kept for the control plane, which proves names there (ACME).'
            hint = "Use another path. A prefix above it is fine: all but the challenges reaches the route."
            yield Finding(subject.key.path, "path-reserved", text, hint, ("spec", "paths", index))


def backends_lead_somewhere(subject: Subject, view: View) -> Iterator[Finding]:
    """Each backend leads to one port that the team may use, on agents that exist."""
    route, key, team = subject.object, subject.key, subject.team
    if not isinstance(route, Route) or team is None:
        return
    for target, field in _targets(route):
        if target.agent is not None:
            if target.port is not None:
                yield from _port_granted(key, team, target.port, (*field, "port"))
            continue
        deployment = view.deployment(key.team, target.deployment or "")
        if deployment is None:
            continue
        if port_of(target, deployment) is None:
            known = _some(f"{port.name or '-'} ({port.container})" for port in deployment.spec.ports)
            text = f'deployment "{target.deployment}" has no single port that fits; it has: {known}.'
            yield Finding(key.path, "unknown-port", text, "Name one with port or portName.", field)
        missing = [name for name in view.agent_names_of(key.team, deployment) if view.agent(name) is None]
        if missing:
            text = f'deployment "{target.deployment}" runs on agent "{missing[0]}", which does not exist.'
            hint = f"Mend deployments/{key.team}/{target.deployment}.yaml."
            yield Finding(key.path, "unknown-agent", text, hint, (*field, "deployment"))


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
        ranges = _some(f"{granted.first}-{granted.last}" for granted in team.ports)
        text = f'team "{team.name}" may not use port {port}.'
        yield Finding(key.path, "port-not-granted", text, f"It may use {ranges} (fleet.yaml).", field)


def entry_point_exists(subject: Subject, view: View) -> Iterator[Finding]:
    """A TCP route names an entry point of the fleet."""
    route = subject.object
    if not isinstance(route, Route) or route.spec.entry_point is None:
        return
    points = view.fleet.spec.entry_points.tcp
    if route.spec.entry_point not in points:
        hint = did_you_mean(route.spec.entry_point, points) or f"The fleet has: {_some(points)} (entryPoints.tcp)."
        text = f'the fleet has no TCP entry point "{route.spec.entry_point}".'
        yield Finding(subject.key.path, "unknown-entry-point", text, hint, ("spec", "entryPoint"))


def certificate_covers_host(subject: Subject, view: View) -> Iterator[Finding]:
    """A certificate that a route names covers each of its hosts."""
    route = subject.object
    if not isinstance(route, Route) or route.spec.tls.certificate is None:
        return
    certificate = view.get(ObjectKey("Certificate", "", route.spec.tls.certificate))
    if not isinstance(certificate, Certificate):
        return
    names = frozenset(certificate.spec.dns_names)
    agents = view.agents_behind(subject.key, route) if route.spec.type == "mongodb" else ()
    for host in hosts_of(route, view.fleet, agents):
        if not covered(host, names):
            text = f'certificate "{route.spec.tls.certificate}" does not cover "{host}".'
            hint = f"It covers: {_some(certificate.spec.dns_names)}. Add the host to its dnsNames, or name another one."
            yield Finding(subject.key.path, "certificate-does-not-cover", text, hint, ("spec", "tls", "certificate"))


def hosts_have_certificates(subject: Subject, view: View) -> Iterator[Finding]:
    """Where TLS ends at the front, some certificate covers each host; a named one is the one that is served."""
    route = subject.object
    if not isinstance(route, Route) or route.spec.tls.mode != "terminate":
        return
    named = route.spec.tls.certificate
    if route.spec.type == "mongodb" and named is None:
        return  # below mongodb.<domain>, where there always is one
    agents = view.agents_behind(subject.key, route) if route.spec.type == "mongodb" else ()
    certificate = view.get(ObjectKey("Certificate", "", named)) if named is not None else None
    names = frozenset(certificate.spec.dns_names) if isinstance(certificate, Certificate) else frozenset()
    for index, host in enumerate(hosts_of(route, view.fleet, agents)):
        serving = view.certificate_of(host)
        field: FieldPath = ("spec", "hostnames", index) if route.spec.hostnames else ("spec",)
        if serving is None and named is None:
            yield missing(subject.key.path, host, field)
        elif serving is not None and named not in (None, serving) and covered(host, names):
            text = f'"{host}" is served with certificate "{serving}", which names it more exactly than "{named}".'
            hint = f"Name {serving} here, or take the host out of certificates/{serving}.yaml."
            where: FieldPath = ("spec", "tls", "certificate")
            yield Finding(subject.key.path, "certificate-shadowed", text, hint, where, severity="warning")


def issuer_is_known(subject: Subject, view: View) -> Iterator[Finding]:
    """A certificate of an ACME server names one of the fleet's, and proves its names in a way that can prove them."""
    certificate = subject.object
    if not isinstance(certificate, Certificate) or certificate.spec.issuer != "acme":
        return
    acme, order = view.fleet.spec.acme, certificate.spec.acme
    if order is not None and order.directory is not None and order.directory not in acme.directories:
        hint = did_you_mean(order.directory, acme.directories) or f"The fleet has: {_some(acme.directories)}."
        text = f'the fleet has no ACME directory "{order.directory}".'
        yield Finding(subject.key.path, "unknown-directory", text, hint, ("spec", "acme", "directory"))
    challenge = (order.challenge if order is not None else None) or acme.challenge
    if challenge == "http-01":
        for index, name in enumerate(certificate.spec.dns_names):
            if name.startswith("*."):
                text = f'"{name}" cannot be proven with http-01: wildcards need dns-01.'
                hint = "Write acme: {challenge: dns-01}, or list the hosts one by one."
                yield Finding(subject.key.path, "wildcard-needs-dns-01", text, hint, ("spec", "dnsNames", index))


def provided_names_are_the_teams(subject: Subject, view: View) -> Iterator[Finding]:
    """Who provides a key could serve every name of its certificate, so each must be a host of that team."""
    certificate = subject.object
    if not isinstance(certificate, Certificate) or certificate.spec.provided is None:
        return
    name = certificate.spec.provided.team
    team = view.team(name)
    granted = view.hosts_granted(team) if team is not None else frozenset()
    for index, host in enumerate(certificate.spec.dns_names):
        if not covered(host, granted):
            text = f'team "{name}", whose secret this is, does not own "{host}".'
            hint = f"It owns: {_some(team.hostnames if team is not None else ())}. Grant it in fleet.yaml."
            yield Finding(subject.key.path, "name-not-owned", text, hint, ("spec", "dnsNames", index))


def certificate_names_are_owned(subject: Subject, view: View) -> Iterator[Finding]:
    """A certificate carries only names of the fleet: below its domain, or owned by a team."""
    certificate = subject.object
    if not isinstance(certificate, Certificate):
        return
    domain = view.fleet.spec.domain
    for index, name in enumerate(certificate.spec.dns_names):
        below = name.removeprefix("*.") == domain or name.endswith(f".{domain}")
        if not below and not covered(name, view.every_host_granted):
            text = f'nobody in the fleet owns "{name}".'
            hint = f"Use names below {domain}, or grant the host to a team in fleet.yaml."
            yield Finding(subject.key.path, "name-not-owned", text, hint, ("spec", "dnsNames", index))


def secret_keys_exist(subject: Subject, view: View) -> Iterator[Finding]:
    """The named key is in the named secret."""
    team = subject.key.team
    if isinstance(subject.object, Certificate) and subject.object.spec.provided is not None:
        team = subject.object.spec.provided.team
    for name, value_key, field in _secret_values(subject.object):
        secret = view.secret(team, name)
        if secret is not None and value_key not in secret.spec.sealed:
            text = f'secret "{name}" has no key "{value_key}".'
            hint = did_you_mean(value_key, secret.spec.sealed) or f"It has: {_some(secret.spec.sealed)}."
            yield Finding(subject.key.path, "unknown-secret-key", text, hint, field)


def _secret_values(found: AnyObject) -> Iterator[tuple[str, str, FieldPath]]:
    """Yield secret, key and field of each sealed value that an object uses."""
    if isinstance(found, Route):
        for index, middleware in enumerate(found.spec.middlewares):
            if middleware.basic_auth is not None:
                reference = middleware.basic_auth.secret
                yield reference.name, reference.key, ("spec", "middlewares", index, "basicAuth", "secret", "key")
    elif isinstance(found, Certificate) and found.spec.provided is not None:
        provided = found.spec.provided
        yield provided.secret, provided.certificate, ("spec", "provided", "certificate")
        yield provided.secret, provided.private_key, ("spec", "provided", "privateKey")
    elif isinstance(found, Deployment):
        for use in found.spec.secret_uses():
            yield use.secret, use.key, (*use.field, "key")


def secrets_are_sealed(subject: Subject, _: View) -> Iterable[Finding]:
    """Nothing that looks like a secret stands in clear; a warning."""
    return plain_secrets(subject.key, subject.object)


def deployment_fits_its_agents(subject: Subject, view: View) -> Iterator[Finding]:
    """Each agent can run the deployment, its ports and images are granted, and a selector selects somebody."""
    deployment, key, team = subject.object, subject.key, subject.team
    if not isinstance(deployment, Deployment) or team is None:
        return
    spec = deployment.spec
    for index, mapping in enumerate(spec.ports):
        yield from _port_granted(key, team, mapping.host, ("spec", "ports", index, "host"))
    yield from images_not_granted(key.path, spec, team)
    yield from mounts_are_beside_the_system(key.path, spec)
    agents = view.agents_of(key.team, deployment)
    if not agents and not spec.agents:
        labels = ", ".join(f"{name}={value}" for name, value in spec.agent_selector.items())
        text = f'no agent of team "{key.team}" carries the labels {labels}; the deployment runs nowhere.'
        field: FieldPath = ("spec", "agentSelector")
        yield Finding(key.path, "selects-no-agent", text, "Label an agent.", field, severity="warning")
    for agent in agents:
        name = agent.metadata.name
        if spec.type not in agent.spec.capabilities:
            text = f'agent "{name}" cannot run type {spec.type}; it can run {_some(agent.spec.capabilities)}.'
            field = ("spec", "agents", spec.agents.index(name)) if name in spec.agents else ("spec", "agentSelector")
            hint = f"Add {spec.type} to its capabilities in {ObjectKey('Agent', '', name).path}, or move it."
            yield Finding(key.path, "agent-lacks-capability", text, hint, field)


def service_names_are_granted(subject: Subject, view: View) -> Iterator[Finding]:
    """The certificate of a service names its own agents, or hosts that the team may claim."""
    deployment, key, team = subject.object, subject.key, subject.team
    if not isinstance(deployment, Deployment) or team is None or deployment.spec.tls is None:
        return
    agents, domain = view.agent_names_of(key.team, deployment), view.fleet.spec.domain
    for index, name in enumerate(deployment.spec.tls.dns_names):
        if not may_name(name, key.name, agents, view.hosts_granted(team), domain):
            text = f'the certificate of deployment "{key.name}" may not name "{name}".'
            hint = (
                f"It has <agent>.agents.{domain} and {key.name}.<agent>.agents.{domain} by itself; list only hosts "
                f'that routes of team "{key.team}" send to it, of: {_some(team.hostnames)}.'
            )
            yield Finding(key.path, "service-name-not-granted", text, hint, (*FIELD, index))


def databases_are_sound(subject: Subject, view: View) -> Iterable[Finding]:
    """A database takes one step at a time, in one place."""
    return database_rules(subject.key, subject.object, view)


RULES: Final[dict[Kind, tuple[Rule, ...]]] = {
    "Fleet": (),
    "Agent": (),
    "Secret": (),
    "Certificate": (
        references_are_good,
        certificate_names_are_owned,
        provided_names_are_the_teams,
        secret_keys_exist,
        issuer_is_known,
    ),
    "Deployment": (
        references_are_good,
        agents_take_new_work,
        secret_keys_exist,
        deployment_fits_its_agents,
        service_names_are_granted,
        databases_are_sound,
        secrets_are_sealed,
    ),
    "Route": (
        references_are_good,
        agents_take_new_work,
        hosts_are_owned,
        paths_are_free,
        backends_lead_somewhere,
        entry_point_exists,
        certificate_covers_host,
        hosts_have_certificates,
        secret_keys_exist,
        secrets_are_sealed,
    ),
}
