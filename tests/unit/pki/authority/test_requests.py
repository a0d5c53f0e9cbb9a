"""Signing requests of others: only a proven public key is taken, and nothing else is believed."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import Refused
from reconciler.pki.authority.names import Permitted, permitted_for
from reconciler.pki.authority.requests import (
    MAX_REQUEST,
    public_key_of_csr,
    read_request_for_intermediate,
    request_for_intermediate,
)
from tests.support.certificates import KEY, csr

GOOD = csr(KEY, der=True)
P384 = ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)
WEAK = rsa.generate_private_key(65537, 1024)
ODD = rsa.generate_private_key(3, 2048)
K1 = ec.generate_private_key(ec.SECP256K1())


def ed_request() -> bytes:
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    return builder.sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(serialization.Encoding.DER)


def refusal(request: bytes, *, for_service: bool = False) -> Refused:
    with pytest.raises(Refused) as caught:
        public_key_of_csr(request, for_service=for_service)
    assert (caught.value.status, caught.value.code) == (400, "bad-csr")
    return caught.value


@pytest.mark.parametrize("der", [True, False])
def test_the_proven_key_is_all_that_is_taken(der: bool) -> None:
    """PEM and DER give the same key; the name evil.example and the wish to be an authority are not looked at."""
    wishes = (
        x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectAlternativeName([x509.DNSName("evil.example")]),
    )

    assert public_key_of_csr(csr(KEY, der=der, extensions=wishes)) == KEY.public_key()


def test_a_service_may_have_an_older_key() -> None:
    """P-384 and RSA of 2048 bits are taken for services, and refused for agents."""
    for key in (P384, RSA):
        assert public_key_of_csr(csr(key), for_service=True) == key.public_key()
        assert "not P-256" in str(refusal(csr(key)))


@pytest.mark.parametrize("key", [WEAK, ODD, K1], ids=["RSA 1024", "exponent 3", "secp256k1"])
def test_weak_and_odd_keys_are_refused(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    """Not even a service gets a certificate for them."""
    refusal(csr(key), for_service=True)


def test_other_kinds_of_keys_are_refused() -> None:
    """Ed25519 is not in the profile of anything here."""
    refusal(ed_request(), for_service=True)


def test_somebody_elses_key_is_refused() -> None:
    """A request whose key is exchanged for another's is not signed with its own key."""
    other = ec.generate_private_key(ec.SECP256R1())
    form = (serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    mine, theirs = KEY.public_key().public_bytes(*form), other.public_key().public_bytes(*form)
    assert mine in GOOD

    assert "own key" in str(refusal(GOOD.replace(mine, theirs)))


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"\x00",
        b"-----BEGIN CERTIFICATE REQUEST-----\n",
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "ä".encode() * 100,
        GOOD[:-1],
        GOOD + b"\x00",
    ],
    ids=range(8),
)
def test_what_is_no_request_is_a_sentence(request_: bytes) -> None:
    """Whatever is sent, the answer is 400."""
    refusal(request_)


def test_size_is_looked_at_before_anything_else() -> None:
    """A megabyte is refused without being parsed, in either form."""
    assert f"{MAX_REQUEST} bytes" in str(refusal(GOOD + b"\x00" * MAX_REQUEST))
    assert f"{MAX_REQUEST} bytes" in str(refusal(b"-----BEGIN" + b"A" * 1_000_000))


@settings(max_examples=300)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_request_with_one_byte_changed_proves_nothing(position: int, change: int) -> None:
    """Every byte of a request is either signed or the signature; no change gets through or ends in another error."""
    changed = bytearray(GOOD)
    changed[position] ^= change

    refusal(bytes(changed), for_service=True)


@settings(max_examples=200)
@given(st.binary(max_size=600))
def test_noise_is_refused(noise: bytes) -> None:
    """Random bytes never raise anything but the refusal."""
    refusal(noise, for_service=True)


def test_our_own_request_says_what_shall_be_permitted() -> None:
    """What an offline root is asked for is read back from the request as it was meant."""
    permitted = permitted_for(listen=["127.0.0.1"], domain="fleet.test", hostnames=["*.shop.test"])

    assert read_request_for_intermediate(request_for_intermediate(KEY, permitted)) == (KEY.public_key(), permitted)


@pytest.mark.parametrize(
    "request_",
    [
        csr(KEY),
        csr(RSA, extensions=(permitted_for(domain="a.test").extension(),)),
        csr(KEY, extensions=(x509.NameConstraints([x509.RFC822Name("a@a.test")], None),)),
        b"x",
    ],
    ids=["no names", "RSA", "mail", "noise"],
)
def test_what_asks_for_something_else_is_not_signed(request_: bytes) -> None:
    """A root signs only requests for a constrained intermediate."""
    with pytest.raises(Refused) as caught:
        read_request_for_intermediate(request_)
    assert caught.value.code == "bad-csr"


def test_a_request_may_permit_nothing() -> None:
    """Before any name is known, too."""
    assert read_request_for_intermediate(request_for_intermediate(KEY, Permitted()))[1] == Permitted()
    assert isinstance(
        x509.load_pem_x509_csr(request_for_intermediate(KEY, Permitted())).signature_hash_algorithm, hashes.SHA256
    )
