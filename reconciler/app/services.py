"""What answers agents that ask for certificates of their services, put together."""

from __future__ import annotations

from collections.abc import Callable

from reconciler.agents.directory import AgentDirectory
from reconciler.agents.service_certificates import ServiceCertificates
from reconciler.pki.authority.authority import Authority
from reconciler.pki.service_issuer import ServiceIssuer
from reconciler.store.protocols import EventStore
from schemas.fleet import Fleet


def service_certificates(
    authority: Authority, directory: AgentDirectory, fleet: Callable[[], Fleet | None], events: EventStore
) -> ServiceCertificates:
    """``fleet`` gives the fleet in service."""

    def in_service(agent: str) -> bool:
        return directory.thumbprint(agent) is not None and not directory.quarantined(agent)

    return ServiceCertificates(ServiceIssuer(authority), in_service, fleet, events)
