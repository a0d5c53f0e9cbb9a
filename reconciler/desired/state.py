"""The state of a revision: what shall be in service, and what is kept out of it and why.

A state is a value. :mod:`reconciler.desired.settle` derives the next one from it at a cost that grows with the change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from reconciler.desired.claims import Claim, ClaimIndex
from reconciler.desired.finding import Finding
from reconciler.desired.parse import Parsed
from reconciler.desired.snapshot import REGULAR_FILE, File
from reconciler.desired.traefik_model import TraefikObjects
from reconciler.desired.view import OpenSecret, View, sealed_for_somebody_else
from schemas.fleet import Fleet
from schemas.objects import FLEET_KEY, AnyObject, ObjectKey
from schemas.secret import Secret
from schemas.session import Item


@dataclass(frozen=True, slots=True)
class Served:
    """An object in service. ``retained``: its newest version is quarantined, this is the last good one."""

    key: ObjectKey
    blob: str
    object: AnyObject
    claims: tuple[Claim, ...]
    references: tuple[ObjectKey, ...]
    retained: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """What a revision means.

    ``findings`` and ``blobs`` cover only files with findings; ``pending`` holds quarantined objects whose file can be
    parsed, so that they are looked at again when something else changes; ``referrers`` leads from an object to those
    in service that name it; ``compiled`` holds what routes became for Traefik and is filled when first needed.
    """

    revision: str = ""
    served: Mapping[ObjectKey, Served] = field(default_factory=dict)
    objects: Mapping[ObjectKey, AnyObject] = field(default_factory=dict)
    """The objects of ``served``, by the same keys, for views."""
    pending: Mapping[ObjectKey, Parsed] = field(default_factory=dict)
    findings: Mapping[str, tuple[Finding, ...]] = field(default_factory=dict)
    blobs: Mapping[str, str] = field(default_factory=dict)
    claims: ClaimIndex = field(default_factory=ClaimIndex)
    referrers: Mapping[ObjectKey, Mapping[ObjectKey, None]] = field(default_factory=dict)
    selected: Mapping[ObjectKey, tuple[str, ...]] = field(default_factory=dict)
    """Deployments in service that choose their agents by label → the agents that they run on, by name."""
    compiled: Mapping[ObjectKey, TraefikObjects] = field(default_factory=dict)
    items: dict[ObjectKey, Item] = field(default_factory=dict, compare=False, repr=False)
    """What objects in service are in agents' documents; filled by :mod:`reconciler.desired.items` when first asked."""

    @property
    def fleet(self) -> Fleet | None:
        served = self.served.get(FLEET_KEY)
        return served.object if served is not None and isinstance(served.object, Fleet) else None

    def view(self, open_sealed: OpenSecret = sealed_for_somebody_else) -> View:
        """Return the questions that rules and compile steps ask, answered by what is in service."""
        return View(self.objects, open_sealed, self.selected, self.claims)

    def secret(self, team: str, name: str) -> Secret | None:
        """Return a secret that is in service."""
        found = self.objects.get(ObjectKey("Secret", team, name))
        return found if isinstance(found, Secret) else None

    @property
    def quarantined(self) -> Iterator[str]:
        """Paths of files whose newest version is kept out of service."""
        return (path for path, found in self.findings.items() if any(one.severity == "error" for one in found))


def files_of(state: State) -> dict[str, File]:
    """Return the object files that a state came from: path and newest blob, quarantined ones included."""
    files = {key.path: File(REGULAR_FILE, one.blob) for key, one in state.served.items()}
    return files | {path: File(REGULAR_FILE, blob) for path, blob in state.blobs.items() if blob}
