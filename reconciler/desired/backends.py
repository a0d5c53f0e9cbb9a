"""From what a route names to addresses: agents and deployments become weighted targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from reconciler.desired.compile_problem import CompileProblem
from reconciler.desired.lookup import Lookup
from schemas.agent import Agent
from schemas.deployment import Deployment
from schemas.route import Backend

Field = tuple[str | int, ...]
_LARGEST_WEIGHT: Final = 1_000_000


class Address(Protocol):
    """What Backend and ServiceAddress share."""

    @property
    def agent(self) -> str | None: ...
    @property
    def deployment(self) -> str | None: ...
    @property
    def port(self) -> int | None: ...
    @property
    def port_name(self) -> str | None: ...


class Endpoint(NamedTuple):
    """One port of one agent. ``address`` is ``host:port``, IPv6 in brackets; ``in_service`` says: may get traffic."""

    agent: str
    address: str
    in_service: bool


class Target(NamedTuple):
    """Where requests go, and the share of them."""

    agent: str
    address: str
    weight: int


def endpoints(team: str, address: Address, lookup: Lookup, field: Field) -> list[Endpoint]:
    """Resolve one address to the endpoints that it stands for: one, or one for each agent of a deployment.

    Raises:
        CompileProblem: ``unknown-agent``, ``unknown-deployment``, ``unknown-port`` or ``ambiguous-port``.
    """
    if address.agent is not None and address.port is not None:
        agent = lookup.agent(address.agent)
        if agent is None:
            raise CompileProblem(
                "unknown-agent", f'agent "{address.agent}" does not exist', (*field, "agent"), "Name an enrolled agent."
            )
        return [_endpoint(agent, address.port)]
    name = address.deployment or ""
    deployment = lookup.deployment(team, name)
    if deployment is None:
        raise CompileProblem(
            "unknown-deployment",
            f'team {team} has no deployment "{name}"',
            (*field, "deployment"),
            f"It would be deployments/{team}/{name}.yaml.",
        )
    port = _host_port(deployment, address, field)
    return [_endpoint(agent, port) for agent in lookup.agents_of(team, deployment)]


def targets(team: str, backends: Sequence[Backend], lookup: Lookup) -> list[Target]:
    """Resolve all backends, those without traffic left out, each address once.

    A backend's weight is the share of the whole backend: a deployment's is divided among its agents in service.
    """
    resolved: list[tuple[int, list[Endpoint]]] = []
    for index, backend in enumerate(backends):
        found = endpoints(team, backend, lookup, ("spec", "backends", index))
        if backend.weight:
            resolved.append((backend.weight, [endpoint for endpoint in found if endpoint.in_service]))
    if len(resolved) == 1:
        return [Target(endpoint.agent, endpoint.address, 1) for endpoint in _once(resolved[0][1])]
    return _weighted(resolved)


def _weighted(resolved: list[tuple[int, list[Endpoint]]]) -> list[Target]:
    scale = math.lcm(*[len(found) for _, found in resolved if found])
    agents: dict[str, str] = {}
    shares: dict[str, int] = {}
    for weight, found in resolved:
        for agent, address, _ in found:
            agents[address] = agent
            shares[address] = shares.get(address, 0) + weight * scale // len(found)
    if not shares:
        return []
    divisor = math.gcd(*shares.values())
    largest = max(shares.values()) // divisor
    if largest > _LARGEST_WEIGHT:  # many deployments of coprime sizes: a share rounded to a millionth is exact enough
        divisor = divisor * largest // _LARGEST_WEIGHT + 1
    return [Target(agents[address], address, share // divisor or 1) for address, share in shares.items()]


def _once(found: list[Endpoint]) -> list[Endpoint]:
    return list({endpoint.address: endpoint for endpoint in found}.values()) if len(found) > 1 else found


def _endpoint(agent: Agent, port: int) -> Endpoint:
    host = agent.spec.address
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Endpoint(agent.metadata.name, address, agent.spec.state != "quarantined")


def _host_port(deployment: Deployment, address: Address, field: Field) -> int:
    ports = deployment.spec.ports
    name = deployment.metadata.name
    if address.port_name is not None:
        for mapping in ports:
            if mapping.name == address.port_name:
                return mapping.host
        message = f'deployment "{name}" has no port named "{address.port_name}"'
        raise CompileProblem("unknown-port", message, (*field, "portName"), _names(deployment))
    if address.port is not None:
        for mapping in ports:
            if mapping.container == address.port:
                return mapping.host
        message = f'deployment "{name}" has no container port {address.port}'
        raise CompileProblem("unknown-port", message, (*field, "port"), _names(deployment))
    if len(ports) == 1:
        return ports[0].host
    if not ports:
        hint = "Add ports to it."
        raise CompileProblem("unknown-port", f'deployment "{name}" has no ports', (*field, "deployment"), hint)
    message = f'deployment "{name}" has {len(ports)} ports'
    raise CompileProblem(
        "ambiguous-port", message, (*field, "deployment"), f"Write port or portName. {_names(deployment)}"
    )


def _names(deployment: Deployment) -> str:
    found = [
        f"{mapping.container} ({mapping.name})" if mapping.name else str(mapping.container)
        for mapping in deployment.spec.ports
    ]
    return f"It has: {', '.join(found)}." if found else "It has no ports."
