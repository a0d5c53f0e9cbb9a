"""Which requests of agents for their services are answered with a certificate, and what the certificate says."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.certificate import Fresh
from reconciler.agents.documents import WantedDocument
from reconciler.agents.service_certificates import NEVER_SECONDS, ServiceCertificates
from reconciler.agents.session import Answered
from reconciler.errors import Broken
from reconciler.pki.agent_issuer import AgentIssuer
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import permitted_for
from reconciler.pki.service_issuer import ServiceIssuer
from schemas.service_tls import ServiceCertificate
from schemas.session import CertificateRequest, Item, digest_of, digest_of_items
from tests.support.memory_store import MemoryStore
from tests.support.tokens import NOW
from tests.unit.agents.enrolling import fleet

ID = "Certificate/shop/orders"
NAMES = ("orders.vps-1.agents.cloudlunacy.test", "vps-1.agents.cloudlunacy.test")
AT = dt.datetime.fromtimestamp(NOW, dt.UTC)


def item(item_id: str = ID, **spec: Any) -> Item:
    whole = ServiceCertificate.model_validate({"dnsNames": NAMES, "lifetime": "24h", **spec})
    said = whole.model_dump(mode="json", by_alias=True, exclude_none=True)
    return Item(id=item_id, kind="Certificate", digest=digest_of(said), spec=said)


def document(*items: Item) -> WantedDocument:
    return WantedDocument(1, "a" * 40, digest_of_items(items), lambda: items)


def request(csr: str | None = None, wanted: Item | None = None, **fields: Any) -> CertificateRequest:
    csr = Fresh.make().csr if csr is None else csr
    return CertificateRequest(**{"sequence": 2, "id": ID, "digest": (wanted or item()).digest, "csr": csr, **fields})


@dataclass
class Plane:
    """A control plane's answers, with a real authority."""

    folder: Path
    in_service: set[str] = field(default_factory=lambda: {"vps-1"})
    now: float = 0.0

    def __post_init__(self) -> None:
        self.authority = Authority.open_or_found(
            self.folder / "keys", permitted=permitted_for(domain="cloudlunacy.test"), now=AT
        )
        self.issuer = ServiceIssuer(self.authority)
        self.store = MemoryStore()
        self.certificates = ServiceCertificates(
            self.issuer,
            lambda name: name in self.in_service,
            fleet,
            self.store,
            clock=lambda: NOW,
            monotonic=lambda: self.now,
        )

    def answer(self, asked: CertificateRequest, *items: Item) -> Answered:
        return asyncio.run(self.certificates.answer("vps-1", document(*(items or (item(),))), asked))

    def revoked(self) -> set[int]:
        crl = x509.load_der_x509_crl(self.authority.crl(AT))
        return {one.serial_number for one in crl}


@pytest.fixture
def plane(tmp_path: Path) -> Plane:
    return Plane(tmp_path)


def leaf_of(answered: Answered) -> x509.Certificate:
    assert not answered.reason, answered
    return x509.load_pem_x509_certificates(answered.certificate.encode())[0]


def names_in(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName)


def csr_for(key: Any, *names: str) -> str:
    builder = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([]))
    if names:
        extension = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(extension, critical=True)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def test_a_service_gets_what_its_item_says(plane: Plane) -> None:
    """Names and life are the item's, the certificate is for servers alone, and the timeline tells of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    answered = plane.answer(request(csr_for(key)))
    leaf = leaf_of(answered)
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert names_in(leaf) == list(NAMES)
    assert leaf.public_key() == key.public_key()
    assert leaf.not_valid_after_utc == AT.replace(microsecond=0) + dt.timedelta(hours=24)
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert answered.bundle == plane.authority.bundle().pem
    (event,) = asyncio.run(plane.store.events())
    assert (event.type, event.subject, event.actor) == ("CertificateIssued", "agent/vps-1", "agent:vps-1")


def test_what_a_request_asks_for_counts_for_nothing(plane: Plane) -> None:
    """Other names, and the wish to be an authority, are not even looked at."""
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = leaf_of(plane.answer(request(csr_for(key, "bank.example.com"))))
    assert names_in(leaf) == list(NAMES)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize(
    ("fields", "items", "reason"),
    [
        ({"id": "Certificate/shop/bank"}, (item(),), "NotWanted"),
        ({"id": "Certificate/apps"}, (Item(id="Certificate/apps", kind="Certificate", digest=digest_of({}), spec={}),),
         "NotWanted"),
        ({"id": "Deployment/shop/orders"}, (item("Deployment/shop/orders"),), "NotWanted"),
        ({}, (Item(id=ID, kind="Certificate", digest=digest_of({"a": 1}), spec={"a": 1}),), "NotWanted"),
        ({"digest": digest_of("older")}, (item(),), "OlderDocument"),
        ({"csr": "no request"}, (item(),), "BadCsr"),
        ({"csr": csr_for(ec.generate_private_key(ec.SECP384R1()))}, (item(),), "BadCsr"),
        ({"csr": csr_for(ec.generate_private_key(ec.SECP521R1()))}, (item(),), "BadCsr"),
    ],
    ids=["stranger", "object", "other-kind", "foreign-shape", "older", "no-csr", "other-key-type", "curve"],
)  # fmt: skip
def test_who_asks_for_anything_else_is_refused(
    plane: Plane, fields: dict[str, Any], items: tuple[Item, ...], reason: str
) -> None:
    """Nothing is signed, and the reason says why."""
    answered = plane.answer(request(**fields), *items)
    assert (answered.reason, answered.certificate, answered.bundle) == (reason, "", "")
    assert answered.id == fields.get("id", ID)
    assert "service" not in plane.authority.counts(AT)


def test_an_agent_without_a_document_gets_nothing(plane: Plane) -> None:
    """It was revoked, or never published."""
    answered = asyncio.run(plane.certificates.answer("vps-1", None, request()))
    assert (answered.reason, answered.retry_seconds) == ("NotWanted", NEVER_SECONDS)


@pytest.mark.parametrize("key_type", ["p-384", "rsa-2048"])
def test_old_programs_may_have_other_keys(plane: Plane, key_type: str) -> None:
    """Where the deployment says so."""
    key = ec.generate_private_key(ec.SECP384R1()) if key_type == "p-384" else rsa.generate_private_key(65537, 2048)
    wanted = item(keyType=key_type)
    assert leaf_of(plane.answer(request(csr_for(key), wanted), wanted)).public_key() == key.public_key()


def test_a_host_outside_the_domain_is_permitted_when_it_is_first_needed(plane: Plane) -> None:
    """The intermediate widens by itself where the root's key is here."""
    wanted = item(dnsNames=["shop.example.test"])
    assert names_in(leaf_of(plane.answer(request(wanted=wanted), wanted))) == ["shop.example.test"]


def test_a_service_that_asks_without_end_has_to_wait(plane: Plane) -> None:
    """After a few a refusal says when; another service of the agent is not held up."""
    for _ in range(5):
        leaf_of(plane.answer(request()))
    refused = plane.answer(request())
    assert refused.reason == "TooManyCertificates"
    assert 0 < refused.retry_seconds <= 600
    other = item("Certificate/shop/api")
    leaf_of(plane.answer(request(id="Certificate/shop/api"), other))
    plane.now += refused.retry_seconds
    leaf_of(plane.answer(request()))


def test_who_is_out_gets_nothing(plane: Plane) -> None:
    """Neither before, nor when the agent loses its place while its certificate is signed: that one is revoked."""
    plane.in_service.clear()
    assert plane.answer(request()).reason == "AgentRevoked"
    plane.in_service.add("vps-1")
    issue, signed = plane.issuer.issue, threading.Event()

    def meanwhile(*arguments: Any, **more: Any) -> Any:
        issued = issue(*arguments, **more)
        plane.in_service.clear()
        signed.set()
        return issued

    plane.issuer.issue = meanwhile  # type: ignore[method-assign]
    assert plane.answer(request()).reason == "AgentRevoked"
    assert signed.is_set()
    assert len(plane.revoked()) == 1
    assert not asyncio.run(plane.store.events())


def test_revoking_an_agent_revokes_what_its_services_have(plane: Plane) -> None:
    """Its own certificate and those below it, and nobody else's; a name that begins alike is somebody else."""
    mine = leaf_of(plane.answer(request()))
    agents = AgentIssuer(plane.authority)
    for name in ("vps-1", "vps-10", "vps-2"):
        agents.issue("cloudlunacy.test", name, Fresh.make().csr, NOW)
    plane.issuer.issue(
        "cloudlunacy.test", "vps-10", "shop/orders", ServiceCertificate.model_validate(item().spec),
        csr=Fresh.make().csr, now=NOW,
    )  # fmt: skip
    assert agents.revoke("vps-1", "cessationOfOperation", NOW) == 2
    assert mine.serial_number in plane.revoked()
    assert len(plane.revoked()) == 2


@pytest.mark.parametrize(
    "failure", [lambda: Broken("the disk is full in /secret/place"), lambda: RuntimeError("bug")], ids=["broken", "bug"]
)
def test_what_goes_wrong_here_is_said_without_details(plane: Plane, failure: Callable[[], Exception]) -> None:
    """The agent comes back later; where the files of the control plane lie is nothing for it."""

    def fail(*_: Any, **__: Any) -> Any:
        raise failure()

    plane.issuer.issue = fail  # type: ignore[method-assign]
    answered = plane.answer(request())
    assert answered.reason == "Unavailable"
    assert answered.retry_seconds > 0
    assert "secret" not in answered.message
