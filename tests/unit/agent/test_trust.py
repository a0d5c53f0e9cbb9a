"""What an agent believes, and how that follows the control plane's authority without ever cutting it off."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from agent.certificate import CertificateKeeper, Fresh, KeeperSettings
from agent.certificate_files import BUNDLE, CertificateFiles
from agent.credentials import AgentFile, Credentials
from agent.documents import DocumentKeys, keys_of
from agent.keys import AgentKey, Unusable
from agent.trust import TrustService, next_ca
from reconciler.pki.authority import profiles
from reconciler.pki.authority.names import permitted_for
from reconciler.pki.authority.profiles import Issuer
from schemas.jwk import JwkSet
from schemas.session import Item, ItemResult, digest_of
from schemas.trust import MEMBER, Trust
from tests.support.agent_hub import TestSigner
from tests.support.certificates import new_intermediate, new_leaf, new_root, of_no_version, text

OLD, NEW, PROXY = new_root(), new_root(), new_root()
FORMER, LATER = TestSigner().jwks, TestSigner().jwks


@dataclass
class Believer:
    ca: str | None
    jwks: JwkSet = FORMER
    fault: Exception | None = None

    async def believe(self, ca: str | None, jwks: JwkSet) -> None:
        if self.fault is not None:
            raise self.fault
        self.ca, self.jwks = ca, jwks


@dataclass
class Left:
    calls: list[tuple[frozenset[str], float]] = field(default_factory=list)

    def __call__(self, retired: frozenset[str], within: float) -> None:
        self.calls.append((retired, within))


def item(trust: Trust | dict[str, Any] | None, **spec: Any) -> Item:
    said = trust.model_dump(mode="json", by_alias=True) if isinstance(trust, Trust) else trust
    whole = {"state": "active", **spec, **({} if said is None else {MEMBER: said})}
    return Item(id="Agent/vps-1", kind="Agent", digest=digest_of(whole), spec=whole)


def apply(service: TrustService, *items: Item) -> ItemResult:
    (result,) = asyncio.run(service.apply(items))
    return result


def test_what_is_believed_follows_the_item() -> None:
    """Roots and keys; the result says that this agent knows of trust."""
    believer, left = Believer(text(OLD.certificate)), Left()
    bundle = text(OLD.certificate, NEW.certificate)
    result = apply(
        TrustService(believer, leave=[left]),
        item(Trust(bundle=bundle, jwks=LATER, retired=("a" * 64,), replace_within=5)),
    )

    assert (believer.ca, believer.jwks) == (bundle, LATER)
    assert (result.state, result.reason) == ("Applied", "TrustApplied")
    assert left.calls == [(frozenset({"a" * 64}), 5.0)]


def test_an_older_control_plane_says_nothing_of_trust() -> None:
    """Then nothing changes, and the item is applied as before."""
    believer = Believer(text(OLD.certificate))
    result = apply(TrustService(believer), item(None))

    assert (result.state, result.reason, believer.jwks) == ("Applied", "Recorded", FORMER)


def test_a_newer_control_plane_may_say_more() -> None:
    """What is not known is left out."""
    said = Trust(bundle=text(OLD.certificate), jwks=LATER).model_dump(mode="json", by_alias=True)
    believer = Believer(text(OLD.certificate))

    assert apply(TrustService(believer), item({**said, "shoeSize": 43})).reason == "TrustApplied"
    assert believer.jwks == LATER


NO_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
NO_KEYS: dict[str, Any] = {"keys": []}


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"bundle": 1},
        {"bundle": "", "jwks": NO_KEYS},
        {"bundle": NO_CERTIFICATE, "jwks": NO_KEYS},
        {"bundle": of_no_version(text(NEW.certificate)), "jwks": NO_KEYS},
        [],
    ],
    ids=["empty", "number", "no roots", "damaged", "no version", "list"],
)
def test_what_cannot_be_read_changes_nothing(said: Any) -> None:
    """It is reported, and what was believed stays."""
    believer = Believer(text(OLD.certificate))
    result = apply(TrustService(believer), item(said))

    assert (result.state, result.reason) == ("Failed", "BadTrust")
    assert (believer.ca, believer.jwks) == (text(OLD.certificate), FORMER)


def test_a_full_disk_is_tried_again() -> None:
    """The applier comes back for what has failed."""
    believer = Believer(text(OLD.certificate), fault=OSError(28, "No space left on device"))
    result = apply(TrustService(believer), item(Trust(bundle=text(NEW.certificate), jwks=LATER)))

    assert (result.state, result.reason) == ("Failed", "NotPersisted")
    assert "No space" in result.message


def test_an_authority_of_somebody_else_stays() -> None:
    """Connections of agents behind a proxy, or of those that trust the system, do not end at the control plane."""
    intermediate = new_intermediate(OLD, permitted_for(domain="fleet.test"))
    both, roots = text(OLD.certificate, NEW.certificate), [OLD.certificate, NEW.certificate]

    assert next_ca(None, both, roots) is None
    assert next_ca(text(PROXY.certificate), both, roots) == text(PROXY.certificate)
    assert next_ca(text(OLD.certificate), both, roots) == both
    assert next_ca(both, text(NEW.certificate), [NEW.certificate]) == text(NEW.certificate)
    assert next_ca(text(intermediate.certificate), both, roots) == both
    assert next_ca(text(NEW.certificate), text(OLD.certificate), [OLD.certificate]) == text(NEW.certificate)


# --- credentials --------------------------------------------------------------------------------------------------


def enrolled(data: Path, ca: str | None = None) -> Credentials:
    AgentKey.load_or_create(data)
    AgentFile(name="vps-1", server="https://127.0.0.1:1", issuer="https://127.0.0.1:1", ca=ca, jwks=FORMER).save(data)
    return Credentials.load(data)


def trusted(context: ssl.SSLContext | None) -> set[str]:
    assert context is not None
    return {ssl.DER_cert_to_PEM_cert(one) for one in context.get_ca_certs(binary_form=True)}


def test_the_next_connection_is_verified_with_the_new_roots_and_the_next_start_too(tmp_path: Path) -> None:
    """Removing one means that it is believed no more: roots are never only added."""
    credentials = enrolled(tmp_path, text(OLD.certificate))
    keys = DocumentKeys(lambda: credentials.jwks)
    assert dict(keys) == dict(keys_of(FORMER))
    asyncio.run(credentials.believe(text(NEW.certificate), LATER))

    for one in (credentials, Credentials.load(tmp_path)):
        assert trusted(one.tls) == {text(NEW.certificate)}
        assert one.jwks == LATER
    assert (len(keys), set(keys)) == (len(LATER.keys), {key.kid for key in LATER.keys})


def test_what_an_enrolment_wrote_meanwhile_stays(tmp_path: Path) -> None:
    """Another process may have given this machine another address of the control plane."""
    credentials = enrolled(tmp_path, text(OLD.certificate))
    AgentFile.load(tmp_path).model_copy(update={"issuer": "https://other.test"}).save(tmp_path)
    asyncio.run(credentials.believe(text(NEW.certificate), LATER))

    assert AgentFile.load(tmp_path).issuer == "https://other.test"


def test_what_cannot_be_written_is_not_believed(tmp_path: Path) -> None:
    """Else a restart would go back to what the control plane has left."""
    credentials = enrolled(tmp_path, text(OLD.certificate))
    (tmp_path / "agent.json").unlink()
    with pytest.raises(Unusable):
        asyncio.run(credentials.believe(text(NEW.certificate), LATER))

    assert (credentials.jwks, trusted(credentials.tls)) == (FORMER, {text(OLD.certificate)})


# --- certificates -------------------------------------------------------------------------------------------------


@dataclass
class Plane:
    """Answers with a certificate of whichever intermediate signs."""

    issuer: Issuer
    name: str = "vps-1"
    asked: int = 0
    time: float = 0.0

    def __post_init__(self) -> None:
        self.time = x509_time(self.issuer) + 4 * 86_400

    def now(self) -> float:
        return self.time

    async def call(self, method: str, path: str, body: Any) -> httpx.Response:
        self.asked += 1
        request = x509.load_pem_x509_csr(body["csr"].encode())
        now = dt.datetime.fromtimestamp(self.time, dt.UTC)
        leaf = profiles.leaf(
            profiles.agent("fleet.test", "vps-1"), request.public_key(), self.issuer,  # type: ignore[arg-type]
            serial=x509.random_serial_number(), now=now,
        )  # fmt: skip
        chain = text(leaf, self.issuer.certificate)
        said = {"certificate": chain, "bundle": text(OLD.certificate), "notAfter": leaf.not_valid_after_utc.timestamp()}
        return httpx.Response(200, json=said)


def x509_time(issuer: Issuer) -> float:
    return issuer.certificate.not_valid_before_utc.timestamp()


def test_a_certificate_under_a_retired_authority_is_replaced_within_the_time_and_once(tmp_path: Path) -> None:
    """One under another authority is left alone, and so is one that came from a retired one again."""
    permitted = permitted_for(domain="fleet.test")
    former, later = new_intermediate(OLD, permitted), new_intermediate(OLD, permitted)
    plane, files = Plane(former), CertificateFiles(tmp_path, "vps-1")
    keeper = CertificateKeeper(files, plane, settings=KeeperSettings(look=1e6), random=lambda: 0.5)
    retired = frozenset({profiles.authority_id(former.certificate)})

    async def scenario() -> None:
        await keeper.step()
        assert plane.asked == 1
        keeper.leave(frozenset(), 10)
        await keeper.step()
        assert plane.asked == 1
        keeper.leave(retired, 60)
        assert await keeper.step() == pytest.approx(30)
        keeper.leave(retired, 60)  # each document says it again
        plane.time += 31
        await keeper.step()
        assert plane.asked == 2, "the control plane had not changed yet"
        assert await keeper.step() > 1000
        plane.issuer = later
        keeper.leave(frozenset(), 60)
        keeper.leave(retired, 60)
        plane.time += 31
        await keeper.step()
        assert plane.asked == 3
        held = files.load()
        assert held is not None
        assert files.authorities(held) == {profiles.authority_id(later.certificate)}
        keeper.leave(retired | {"a" * 64}, 0)
        assert await keeper.step() > 1000

    asyncio.run(scenario())
    assert plane.asked == 3


def test_whoever_waits_is_woken(tmp_path: Path) -> None:
    """The keeper sleeps for a minute at a time."""
    plane = Plane(new_intermediate(OLD, permitted_for(domain="fleet.test")))
    keeper = CertificateKeeper(CertificateFiles(tmp_path, "vps-1"), plane, random=lambda: 0.0)

    async def scenario() -> None:
        running = asyncio.create_task(keeper.run())
        async with asyncio.timeout(10):
            while plane.asked == 0:
                await asyncio.sleep(0.01)
            keeper.leave(frozenset({profiles.authority_id(plane.issuer.certificate)}), 0)
            while plane.asked == 1:
                await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(scenario())


def test_the_roots_beside_the_certificate_follow(tmp_path: Path) -> None:
    """Key and chain stay the same; without a certificate there is nothing to do."""
    files = CertificateFiles(tmp_path, "vps-1")
    files.rebundle(b"nothing yet")
    assert files.load() is None
    fresh, issuer = Fresh.make(), new_intermediate(OLD, permitted_for(domain="fleet.test"))
    request = x509.load_pem_x509_csr(fresh.csr.encode())
    leaf = new_leaf(profiles.agent("fleet.test", "vps-1"), issuer)
    chain = profiles.leaf(
        profiles.agent("fleet.test", "vps-1"), request.public_key(), issuer,  # type: ignore[arg-type]
        serial=leaf.serial_number, now=leaf.not_valid_before_utc,
    )  # fmt: skip
    before = files.install(fresh.key, text(chain).encode(), text(OLD.certificate).encode(), received_at=1.0)
    believer, both = Believer(text(OLD.certificate)), text(OLD.certificate, NEW.certificate)
    for _ in range(2):
        apply(TrustService(believer, files), item(Trust(bundle=both, jwks=LATER)))

    after = files.load()
    assert after is not None
    assert (after.directory / BUNDLE).read_text() == both
    assert (after.serial, after.life) == (before.serial, before.life)
    assert after.directory.name == "certificate.2"
