"""What is built for rotations of keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from reconciler.app.certificate import OwnCertificate
from reconciler.app.rotation import Rotations
from reconciler.app.verifiers import Verifiers
from reconciler.pki.authenticator import Authenticator
from reconciler.pki.keystore import KeyStore
from reconciler.pki.rotation import DEFAULTS
from reconciler.settings import Settings
from reconciler.steps.certificates import Certificates
from reconciler.steps.fronts import Fronts
from reconciler.steps.passing import Published
from reconciler.store.protocols import AgentObservation, EventStore
from reconciler.web.rotation_api import RotationApi, view
from schemas.rotation_api import RotationView


class Plane(Protocol):
    """:class:`reconciler.app.building.Parts`."""

    certificate: OwnCertificate
    rotations: Rotations

    @property
    def published(self) -> Published: ...
    def observations(self) -> Mapping[str, AgentObservation]: ...
    def connected(self) -> frozenset[str]: ...


def rotations_of(  # noqa: PLR0917 - each is another type
    plane: Plane,
    keys: KeyStore,
    settings: Settings,
    events: EventStore,
    certificates: Certificates,
    fronts: Fronts,
    on_change: Callable[[], None],
) -> Rotations:
    """Build what drives rotations, and let the certificates of fronts follow what they do."""
    authority = plane.certificate.authority
    authority.listeners.append(certificates.poke)
    verifiers = Verifiers(
        keys,
        published=lambda: plane.published,
        seen=plane.observations,
        connected=plane.connected,
        fronts=lambda: [front.name for front in fronts.fronts],
        overlay=lambda: certificates.overlay,
        names=lambda: plane.certificate.names,
    )
    return Rotations(
        settings.data / "keys",
        keys,
        authority,
        fleet=verifiers,
        events=events,
        on_change=on_change,
        times=DEFAULTS.at_pace(settings.rotation_pace),
    )


def rotation_api(plane: Plane, authenticator: Authenticator) -> RotationApi:
    """Build its endpoints."""
    return RotationApi(authenticator=authenticator, rotations=plane.rotations, server_ends=plane.certificate.ends)


def rotation_views(plane: Plane) -> tuple[RotationView, ...]:
    """Return those that are under way."""
    kept = plane.rotations.kept
    return tuple(view(kept, one) for one in kept.under_way.values())
