"""A chain and a key are served together only when they belong together."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from reconciler.pki.authority import pairs
from reconciler.pki.authority.names import Names
from reconciler.pki.authority.pairs import key_pem, new_key
from reconciler.pki.authority.profiles import authority_id
from reconciler.pki.certificate_pair import CertificatePair, NoPair
from tests.support.certificates import KEY, NOW, csr
from tests.support.pairs import FakeAuthority

AUTHORITY = FakeAuthority()
PAIR = AUTHORITY.pair("*.app.cloudlunacy.test", "shop.test")


def test_what_is_held_is_read_from_the_chain() -> None:
    """Names, the earliest end, and the keys of the authorities above the leaf."""
    held = PAIR.held
    assert held.names == ("*.app.cloudlunacy.test", "shop.test")
    above = (AUTHORITY.intermediate.certificate, AUTHORITY.root.certificate)
    assert held.authorities == {authority_id(one) for one in above}
    assert held.not_before < AUTHORITY.now < held.not_after <= min(one.not_valid_after_utc for one in above)


def test_text_beside_the_certificates_is_left_out() -> None:
    """People paste what openssl printed, with Windows' line ends."""
    pasted = "subject=CN=x\r\n" + PAIR.chain.replace("\n", "\r\n") + "  bye\r\n"
    assert CertificatePair.read(pasted, PAIR.key).chain == PAIR.chain


@pytest.mark.parametrize(
    ("chain", "key", "why"),
    [
        ("", PAIR.key, "there are 0 certificates"),
        (PAIR.chain * 4, PAIR.key, "there are 12 certificates"),
        (PAIR.chain.replace("MII", "BII"), PAIR.key, "certificate 1 of the chain cannot be read"),
        (csr(KEY).decode(), PAIR.key, "there are 0 certificates"),
        (PAIR.chain, "", "the key is no P-256"),
        (PAIR.chain, PAIR.chain, "the key is no P-256"),
        (PAIR.chain, key_pem(new_key(), b"a passphrase").decode(), "the key is no P-256"),
        (PAIR.chain, key_pem(ec.generate_private_key(ec.SECP256R1())).decode(), "not the one of the first certificate"),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_sentence(chain: str, key: str, why: str) -> None:
    """No damage gets out as anything else, and the key stands in no message."""
    with pytest.raises(NoPair, match=why) as caught:
        CertificatePair.read(chain, key)
    assert "PRIVATE KEY" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["*.app.cloudlunacy.test"], "also names shop.test"),
        (["*.app.cloudlunacy.test", "shop.test", "www.shop.test"], "lacks www.shop.test"),
        (["SHOP.test", "*.app.cloudlunacy.test"], None),
    ],
)
def test_a_pair_for_other_names_is_refused(names: list[str], why: str | None) -> None:
    """Whoever provides a pair cannot smuggle another's name in."""
    if why is None:
        PAIR.must_be_for(names)
        return
    with pytest.raises(NoPair, match=why):
        PAIR.must_be_for(names)


@pytest.mark.parametrize(
    ("common_name", "why"),
    [
        ("shop.test", None),
        ("SHOP.test", None),
        ("Shop Inc. and Sons", None),
        ("shop", None),
        ("web.app.cloudlunacy.test", "also names web.app.cloudlunacy.test"),
        ("*.app.cloudlunacy.test", "also names"),
        ("Shop,web.app.cloudlunacy.test,x", "also names web.app.cloudlunacy.test"),
        ("web.app.cloudlunacy.test.", "also names"),
    ],
)
def test_a_host_in_the_subject_is_a_name_too(common_name: str, why: str | None) -> None:
    """Traefik serves what the common name says, split at commas, before a wildcard of somebody else."""
    pair = self_made(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]), "shop.test")
    if why is None:
        pair.must_be_for(["shop.test"])
        return
    with pytest.raises(NoPair, match=re.escape(why)):
        pair.must_be_for(["shop.test"])


def test_an_address_is_a_name_too() -> None:
    """Nobody owns addresses."""
    pair = self_made(x509.Name([]), "shop.test", "192.0.2.1")
    with pytest.raises(NoPair, match=re.escape("also names 192.0.2.1")):
        pair.must_be_for(["shop.test"])


def self_made(subject: x509.Name, *hosts: str) -> CertificatePair:
    """A pair with any subject, signed by itself."""
    key = pairs.new_key()
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 5, NOW, NOW + dt.timedelta(days=90))
        .add_extension(Names.of(hosts).extension(), critical=True)
        .sign(key, hashes.SHA256())
    )
    return CertificatePair.read(pairs.pem(certificate).decode(), pairs.key_pem(key).decode())


def test_the_key_is_not_shown() -> None:
    """Neither in logs nor in a failing test."""
    assert "PRIVATE KEY" not in repr(PAIR)
