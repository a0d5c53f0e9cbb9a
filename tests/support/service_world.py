"""An agent's certificates of services: clock, connection and the answers of the control plane by hand."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from agent.grants import FILE
from agent.service_certificates import ServiceCertificates, ServiceSettings
from agent.session import Ask
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import permitted_for
from reconciler.pki.service_issuer import ServiceIssuer
from schemas.service_tls import ServiceCertificate
from schemas.session import CertificateAnswer, Item, ItemResult, digest_of
from tests.support.tokens import NOW

DOMAIN = "cloudlunacy.test"
NAMES = ("orders.vps-1.agents.cloudlunacy.test", "vps-1.agents.cloudlunacy.test")
DAY = 86_400.0
ID = "Certificate/shop/orders"
SETTINGS = ServiceSettings(ask_base=10.0, ask_cap=100.0, tell_base=1.0, tell_cap=8.0)


def item(item_id: str = ID, **spec: Any) -> Item:
    """What an agent is told of a service; it lives for a day unless ``spec`` says otherwise."""
    whole = ServiceCertificate.model_validate({"dnsNames": NAMES, "lifetime": "24h", **spec})
    said = whole.model_dump(mode="json", by_alias=True, exclude_none=True)
    return Item(id=item_id, kind="Certificate", digest=digest_of(said), spec=said)


def make_issuer(keys: Path, now: float = NOW) -> ServiceIssuer:
    at = dt.datetime.fromtimestamp(now, dt.UTC)
    return ServiceIssuer(Authority.open_or_found(keys, permitted=permitted_for(domain=DOMAIN), now=at))


class World:
    """``now`` moves by hand, and the monotonic clock with it. Every random draw is a half."""

    def __init__(self, data: Path, issuer: ServiceIssuer) -> None:
        self.data = data
        self.issuer = issuer
        self.now = NOW
        self.asked: list[Ask] = []
        self.changes = 0
        self._sequence = itertools.count(1)
        self.restart()

    def restart(self) -> None:
        """As after SIGKILL: only the disk is left."""
        self.service = ServiceCertificates(
            self.data, lambda: self.now, settings=SETTINGS, monotonic=lambda: self.now, random=lambda: 0.5
        )
        self.service.on_change = self._changed

    def _changed(self) -> None:
        self.changes += 1

    def apply(self, *items: Item) -> dict[str, ItemResult]:
        return {result.id: result for result in asyncio.run(_apply(self.service, items))}

    def step(self, seconds: float = 0.0) -> float:
        """Let time pass, do what is due, return the pause until something else is."""
        self.now += seconds
        return asyncio.run(_step(self.service))

    def connect(self) -> None:
        self.service.connected(self.asked.append)

    def answer(self, wanted: Item, **fields: Any) -> None:
        """Answer the oldest request: with a certificate, or with ``fields``."""
        ask = self.asked.pop(0)
        assert ask.id == wanted.id
        if not fields:
            issued = self.issuer.issue(
                DOMAIN,
                "vps-1",
                ask.id.removeprefix("Certificate/"),
                ServiceCertificate.model_validate(wanted.spec),
                csr=ask.csr,
                now=self.now,
            )
            fields = {"certificate": issued.certificate, "bundle": issued.bundle}
        self.service.answered(CertificateAnswer(sequence=next(self._sequence), id=ask.id, **fields))
        self.step()

    def issue(self, wanted: Item) -> ItemResult:
        """Go the whole way of a first certificate, and say how the item stands."""
        self.apply(wanted)
        self.connect()
        self.step()
        self.answer(wanted)
        return self.apply(wanted)[wanted.id]


async def _apply(service: ServiceCertificates, items: tuple[Item, ...]) -> list[ItemResult]:
    return list(await service.apply(items))


async def _step(service: ServiceCertificates) -> float:
    return await service.step()


def grant(world: World, text: str) -> None:
    """Write what the machine allows."""
    (world.data / FILE).write_text(f"[services]\n{text}\n")
    (world.data / FILE).chmod(0o600)


def files(world: World) -> Path:
    """The link to the files of :data:`ID`."""
    return world.data / "services" / "shop" / "orders"


def leaf(directory: Path) -> x509.Certificate:
    """The certificate in a service's directory."""
    return x509.load_pem_x509_certificates((directory / "tls.crt").read_bytes())[0]


def pair_in(directory: Path) -> bool:
    """Whether key, certificate and the file with both belong together."""
    key = (directory / "tls.key").read_bytes()
    private = serialization.load_pem_private_key(key, None)
    whole = (directory / "tls.pem").read_bytes()
    return private.public_key() == leaf(directory).public_key() and whole == key + (directory / "tls.crt").read_bytes()
