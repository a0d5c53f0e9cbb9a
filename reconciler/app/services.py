"""What answers agents that ask for certificates of their services and for secrets, put together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from reconciler.agents.deployment_secrets import DeploymentSecrets
from reconciler.agents.directory import AgentDirectory
from reconciler.agents.service_certificates import ServiceCertificates
from reconciler.desired.state import State
from reconciler.desired.view import OpenSecret
from reconciler.pki.authority.authority import Authority
from reconciler.pki.service_issuer import ServiceIssuer
from reconciler.store.protocols import EventStore
from schemas.fleet import Fleet


def service_certificates(
    authority: Authority, directory: AgentDirectory, fleet: Callable[[], Fleet | None], events: EventStore
) -> ServiceCertificates:
    """``fleet`` gives the fleet in service."""
    return ServiceCertificates(ServiceIssuer(authority), partial(_in_service, directory), fleet, events)


def deployment_secrets(
    directory: AgentDirectory, state: Callable[[], State], open_sealed: OpenSecret, events: EventStore
) -> DeploymentSecrets:
    """``state`` gives what is in service."""
    return DeploymentSecrets(state, open_sealed, partial(_in_service, directory), events)


def _in_service(directory: AgentDirectory, agent: str) -> bool:
    return directory.thumbprint(agent) is not None and not directory.quarantined(agent)
