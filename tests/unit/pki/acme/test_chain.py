from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.pki.acme.chain import NoChainError, OtherKeyError, checked_chain, request_for
from tests.support.certificates import of_no_version

KEY = ec.generate_private_key(ec.SECP256R1())
NAMES = ("a.example.test", "*.b.example.test")


def certificate(*names: str, key: ec.EllipticCurvePrivateKey = KEY, others: tuple[x509.GeneralName, ...] = ()) -> str:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    alternative = [*(x509.DNSName(name) for name in names), *others]
    if alternative:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=True)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def test_a_request_has_the_names_and_nothing_else() -> None:
    """An empty subject, the names as subjectAltName, signed with the key."""
    request = request_for(NAMES, KEY)
    assert request.is_signature_valid
    assert request.subject == x509.Name([])
    alternative = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert tuple(alternative.get_values_for_type(x509.DNSName)) == NAMES
    assert len(request.extensions) == 1


def test_a_chain_is_written_anew() -> None:
    """What a server writes between certificates is gone, the order of certificates stays."""
    first, second = certificate(*NAMES), certificate("ca.test")
    assert checked_chain(f"\x1b[31m words\n{first}more {{{{ env }}}}\n{second}", NAMES, KEY) == first + second


def test_names_are_compared_without_order_and_case() -> None:
    """A server may sort them and write them otherwise."""
    assert checked_chain(certificate(*reversed(NAMES)), ("A.example.test", NAMES[1]), KEY)


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "no PEM \x00",
        certificate(NAMES[0]),
        certificate(*NAMES, "victim.test"),
        certificate(*NAMES, others=(x509.RFC822Name("root@victim.test"),)),
        certificate(),
        certificate(*NAMES) * 11,
        of_no_version(certificate(*NAMES)),
    ],
)
def test_what_is_no_chain_for_exactly_the_names_is_refused(pem: str) -> None:
    """Fewer names, more names, names of another kind, nothing, too much."""
    with pytest.raises(NoChainError):
        checked_chain(pem, NAMES, KEY)


def test_a_certificate_for_another_key_is_told_apart() -> None:
    """It may belong to a key that was lost."""
    with pytest.raises(OtherKeyError):
        checked_chain(certificate(*NAMES, key=ec.generate_private_key(ec.SECP256R1())), NAMES, KEY)
