"""What the step of certificates needs of whoever orders at ACME servers (:mod:`reconciler.app.acme_orders`)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Protocol

from reconciler.pki.certificate_pair import CertificatePair
from reconciler.pki.renewal import Delay, Desired


class Orders(Protocol):
    """Orders at ACME servers, under way in the background. Names are those of Certificate objects."""

    def ask(self, wanted: Mapping[str, Desired]) -> None:
        """Begin what is not under way, and give up what is not named any more. Returns at once."""
        ...

    def delays(self) -> Mapping[str, Delay]:
        """Say what is under way, and what waits for its time."""
        ...

    def suggested(self, held: Mapping[str, CertificatePair]) -> Mapping[str, dt.datetime]:
        """Return when to renew, of those whose server said so."""
        ...


class NoOrders:
    """Nobody orders anything."""

    def ask(self, wanted: Mapping[str, Desired]) -> None:
        del wanted

    def delays(self) -> Mapping[str, Delay]:
        return {}

    def suggested(self, held: Mapping[str, CertificatePair]) -> Mapping[str, dt.datetime]:
        del held
        return {}
