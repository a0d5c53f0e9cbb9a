"""One service's certificate as its agent knows it, and what is said of it: nothing here waits or opens."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from agent.backoff import Backoff
from agent.renewal import Standing
from agent.service_files import HeldService, Place, ServiceName
from agent.service_keys import FreshKey
from agent.telling import NotTold
from schemas.service_tls import ServiceCertificate
from schemas.session import Item, ItemResult


@dataclass(slots=True)
class ServiceState:
    """One service. ``due``: when it is renewed, drawn once for each certificate."""

    name: ServiceName
    item: Item
    wanted: ServiceCertificate
    asking: Backoff
    telling: Backoff
    looked_at: float = 0.0
    place: Place | None = None
    denied: tuple[str, str] = ("", "")
    """Reason and message, where the files cannot be where they belong."""
    held: HeldService | None = None
    due: float = 0.0
    leave_at: float | None = None
    """When the retired authority that it is under is to be left; None where none is known."""
    fresh: FreshKey | None = None
    """A request for it is under way, or waits for a connection."""
    asked: str = ""
    """Digest of the item that the request was made for."""
    ask_at: float = 0.0
    refused: tuple[str, str] = ("", "")
    """Reason and message of the last refusal; empty once a certificate came."""
    told: bool = False
    tell_at: float = 0.0
    not_told: NotTold | None = None

    def fits(self) -> bool:
        """Say whether the certificate in place is the one that is wanted, whatever its age."""
        held, wanted = self.held, self.wanted
        return held is not None and held.names == frozenset(wanted.dns_names) and held.key_type == wanted.key_type


def result_of(service: ServiceState, state: Standing) -> ItemResult:
    held, (reason, message), (denied, why) = service.held, service.refused, service.denied
    item = service.item.id
    if denied:
        return ItemResult(id=item, state="Failed", reason=denied, message=why)
    if held is None or not service.fits() or state == "ended":
        if reason:
            return ItemResult(id=item, state="Failed", reason=reason, message=message)
        return ItemResult(id=item, state="Progressing", reason="Waiting", message="A certificate is asked for.")
    said = describe(held)
    if reason:
        said += f" The next was refused: {message}"
    if service.told:
        return ItemResult(id=item, state="Applied", reason="Issued", message=said[:2000])
    if service.not_told is None:
        return ItemResult(id=item, state="Progressing", reason="Telling", message=said[:2000])
    stands = "Applied" if service.not_told.reason == "NotRunning" else "Failed"
    return ItemResult(
        id=item, state=stands, reason=service.not_told.reason, message=f"{service.not_told} {said}"[:2000]
    )


def describe(held: HeldService) -> str:
    """Say names, end and fingerprint of a certificate, for people."""
    until = dt.datetime.fromtimestamp(held.life.ends, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{', '.join(sorted(held.names))}; until {until}; SHA-256 {held.fingerprint}."
