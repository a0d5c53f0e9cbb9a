"""What fronts serve that follows from no object alone: issued certificates with their keys, and the authority's roots.

It lies beside a state and changes without one: a renewed certificate means the same revision under a new generation.
An overlay is rendered once and put into any number of files (:meth:`reconciler.desired.render.Renderer.compose`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from reconciler.desired.composition import Texts
from reconciler.desired.traefik_model import Certificate, TraefikObject, TraefikObjects

NO_ROOTS: Final = "no roots"
"""In place of PEM: Traefik trusts nobody then, so that a connection that should be checked fails."""
NO_CLIENT: Final[Certificate] = {"certFile": "no certificate", "keyFile": "no key"}
"""In place of a pair: Traefik has no transport then, so that a connection that should be proven is not made."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """``roots``: PEM, one after the other. Keys are in ``texts``, which no ``repr`` shows.

    ``leaves``: certificate → what fronts show with it, as the SHA-256 of the leaf in hex.
    """

    texts: Texts = field(default_factory=dict, repr=False)
    roots: str = NO_ROOTS
    leaves: Mapping[str, str] = field(default_factory=dict)
    client: Certificate = field(default_factory=lambda: NO_CLIENT, repr=False)
    """By which fronts prove themselves to agents that ask for it."""


NO_OVERLAY: Final = Overlay()


def served_certificates(pairs: Mapping[str, Certificate]) -> TraefikObjects:
    """Return the objects of certificates, by name of the Certificate object; Traefik chooses by the names in them."""
    return tuple(TraefikObject("tls.certificates", name, pairs[name]) for name in sorted(pairs))
