"""What certificates say, field by field; openssl judges them as a whole in the integration tests."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from reconciler.pki.authority import profiles
from reconciler.pki.authority.names import Names, permitted_for
from tests.support.certificates import KEY, NOW, names, new_intermediate, new_leaf, new_root

FLEET = permitted_for(listen=["127.0.0.1"], domain="fleet.test")
ROOT = new_root()
INTERMEDIATE = new_intermediate(ROOT, FLEET)
AGENT = profiles.agent("fleet.test", "vps-1")


def criticals(certificate: x509.Certificate) -> dict[str, bool]:
    return {extension.oid._name: extension.critical for extension in certificate.extensions}


def test_a_root_is_an_authority_over_one_level() -> None:
    """pathLen 1, no constraints, ten years, signed by itself."""
    root = ROOT.certificate
    root.verify_directly_issued_by(root)

    assert criticals(root) == {"basicConstraints": True, "keyUsage": True, "subjectKeyIdentifier": False}
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 1
    assert root.not_valid_after_utc - NOW == profiles.ROOT_LIFETIME
    assert NOW - root.not_valid_before_utc == profiles.AUTHORITY_SKEW


def test_an_intermediate_is_constrained_and_signs_no_authorities() -> None:
    """pathLen 0, critical name constraints, only TLS below it."""
    certificate = INTERMEDIATE.certificate
    extensions = certificate.extensions

    assert criticals(certificate) == {
        "basicConstraints": True,
        "keyUsage": True,
        "nameConstraints": True,
        "extendedKeyUsage": False,
        "subjectKeyIdentifier": False,
        "authorityKeyIdentifier": False,
    }
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert extensions.get_extension_for_class(x509.NameConstraints).value == FLEET.extension()
    assert certificate.not_valid_after_utc - NOW == profiles.INTERMEDIATE_LIFETIME


def test_an_agent_is_server_and_client_for_a_day() -> None:
    """Its SPIFFE id and its server name, 24 hours, five minutes back; its subject is its server name."""
    certificate = new_leaf(AGENT, INTERMEDIATE)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    own = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert own.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://fleet.test/agent/vps-1"]
    assert own.get_values_for_type(x509.DNSName) == ["vps-1.agents.fleet.test"]
    assert certificate.not_valid_after_utc - NOW == dt.timedelta(hours=24)
    assert NOW - certificate.not_valid_before_utc == dt.timedelta(minutes=5)
    assert certificate.subject.rfc4514_string() == "CN=vps-1.agents.fleet.test"
    assert criticals(certificate)["subjectAltName"] is False


@pytest.mark.parametrize(
    "one", [names("127.0.0.1"), names("*.fleet.test"), names(f"{'a' * 60}.fleet.test")], ids=["IP", "wildcard", "long"]
)
def test_a_leaf_without_a_subject_has_critical_names(one: Names) -> None:
    """RFC 5280, 4.2.1.6; an address is never a common name, which OpenSSL would hold against DNS constraints."""
    certificate = new_leaf(profiles.server(one), INTERMEDIATE)

    assert not list(certificate.subject)
    assert criticals(certificate)["subjectAltName"] is True


def test_a_server_is_no_client() -> None:
    """serverAuth alone, digitalSignature alone."""
    certificate = new_leaf(profiles.server(names("fleet.test")), INTERMEDIATE)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value

    assert set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH
    }
    assert (usage.digital_signature, usage.key_encipherment, usage.key_cert_sign, usage.crl_sign) == (
        True,
        False,
        False,
        False,
    )


def test_an_old_service_with_rsa_may_use_it_for_key_exchange() -> None:
    """keyEncipherment goes with RSA keys only."""
    key = rsa.generate_private_key(65537, 2048).public_key()
    profile = profiles.service(names("db.fleet.test"), dt.timedelta(days=1))
    certificate = profiles.leaf(profile, key, INTERMEDIATE, serial=1, now=NOW)

    assert certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_encipherment


def test_nothing_outlives_or_precedes_its_issuer() -> None:
    """A leaf made shortly before the end of the intermediate ends with it, one made at its start starts with it."""
    authority = INTERMEDIATE.certificate
    last = new_leaf(AGENT, INTERMEDIATE, authority.not_valid_after_utc - dt.timedelta(hours=1))
    first = new_leaf(AGENT, INTERMEDIATE, authority.not_valid_before_utc)

    assert last.not_valid_after_utc == authority.not_valid_after_utc
    assert first.not_valid_before_utc == authority.not_valid_before_utc


def test_an_intermediate_ends_with_its_root() -> None:
    """In the last year of a root its intermediates get shorter."""
    late = NOW + profiles.ROOT_LIFETIME - dt.timedelta(days=10)

    assert new_intermediate(ROOT, FLEET, late).certificate.not_valid_after_utc == ROOT.certificate.not_valid_after_utc


def test_key_ids_make_a_chain() -> None:
    """Each certificate names the key of its issuer, so that equal names confuse nobody."""
    leaf = new_leaf(AGENT, INTERMEDIATE)

    def authority(certificate: x509.Certificate) -> str:
        extension = certificate.extensions.get_extension_for_oid(ExtensionOID.AUTHORITY_KEY_IDENTIFIER)
        assert isinstance(extension.value, x509.AuthorityKeyIdentifier)
        return (extension.value.key_identifier or b"").hex()

    assert authority(leaf) == profiles.key_id(INTERMEDIATE.certificate)
    assert authority(INTERMEDIATE.certificate) == profiles.key_id(ROOT.certificate)


def test_two_roots_have_two_names() -> None:
    """A root's name ends with digits of its key, so that a chain is never built to the wrong one."""
    assert new_root().certificate.subject != new_root().certificate.subject


def test_what_a_p384_root_signs_has_its_strength() -> None:
    """SHA-384 for P-384, SHA-256 for P-256."""
    strong = new_root(key=ec.generate_private_key(ec.SECP384R1()))

    assert isinstance(strong.certificate.signature_hash_algorithm, hashes.SHA384)
    assert isinstance(new_intermediate(strong, FLEET).certificate.signature_hash_algorithm, hashes.SHA384)
    assert isinstance(new_leaf(AGENT, INTERMEDIATE).signature_hash_algorithm, hashes.SHA256)


def test_an_issuer_shows_no_key() -> None:
    """Its representation is its name."""
    assert repr(ROOT) == f"Issuer({ROOT.certificate.subject.rfc4514_string()})"
    assert KEY.curve.name == "secp256r1"
