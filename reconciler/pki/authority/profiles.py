"""What our certificates say (RFC 5280). Pure: clock, serials and keys are arguments.

| certificate | lives | critical | also |
|---|---|---|---|
| root | 10 years | basicConstraints CA pathLen 1, keyUsage keyCertSign cRLSign | SKI |
| intermediate | 1 year | the same with pathLen 0, nameConstraints | SKI, AKI, EKU serverAuth clientAuth |
| leaf | as its profile says | basicConstraints, keyUsage digitalSignature, SAN without a subject | EKU, SKI, AKI |

No certificate outlives its issuer. Those of authorities begin three days early: a clock that was ahead when one was
made, and has been put right since, must not leave a fleet whose root is not valid yet.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from reconciler.pki.authority.names import Names, Permitted

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
Validity = tuple[dt.datetime, dt.datetime]
Kind = Literal["root", "intermediate", "server", "agent", "service", "client"]

ROOT_LIFETIME: Final = dt.timedelta(days=3652)
INTERMEDIATE_LIFETIME: Final = dt.timedelta(days=365)
SERVER_LIFETIME: Final = dt.timedelta(days=30)
AGENT_LIFETIME: Final = dt.timedelta(hours=24)
SKEW: Final = dt.timedelta(minutes=5)
"""Leaves are valid from this long before their issue on: the clock of a verifier may be behind."""
AUTHORITY_SKEW: Final = dt.timedelta(days=3)
EARLIEST: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
"""A clock that says less has not been set."""
UNREADABLE: Final = (
    CryptographyDeprecationWarning,  # where warnings are errors; it is a serial that is not positive
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)
"""What reading a certificate, a request or a list of revocations raises that is none, or where a part of it is none."""
_MAX_COMMON_NAME: Final = 64
"""RFC 5280, appendix A.1: ub-common-name."""

_USAGES: Final[dict[str, tuple[ObjectIdentifier, ...]]] = {
    "server": (ExtendedKeyUsageOID.SERVER_AUTH,),
    "agent": (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    "service": (ExtendedKeyUsageOID.SERVER_AUTH,),
    "client": (ExtendedKeyUsageOID.CLIENT_AUTH,),
}


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs: a certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKey

    def __repr__(self) -> str:
        return f"Issuer({self.certificate.subject.rfc4514_string()})"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a leaf says, but for its key."""

    kind: Literal["server", "agent", "service", "client"]
    names: Names
    lifetime: dt.timedelta


def server(names: Names, lifetime: dt.timedelta = SERVER_LIFETIME) -> Profile:
    """The certificate of a server of the control plane, or one that a front shows: serverAuth."""
    return Profile("server", names, lifetime)


def service(names: Names, lifetime: dt.timedelta) -> Profile:
    """The certificate of a service on an agent, by CSR: serverAuth; the key may be P-384 or RSA too."""
    return Profile("service", names, lifetime)


def client(names: Names, lifetime: dt.timedelta = SERVER_LIFETIME) -> Profile:
    """The certificate by which fronts prove themselves to agents: clientAuth and nothing else."""
    return Profile("client", names, lifetime)


def agent(domain: str, name: str) -> Profile:
    """The certificate of an agent, for 24 hours: serverAuth and clientAuth, its SPIFFE id and its server name.

    Raises:
        ValueError: when name and domain together are longer than a DNS name may be.
    """
    names = Names(dns=(agent_host(domain, name),), uris=(spiffe_id(domain, name),))
    return Profile("agent", names, AGENT_LIFETIME)


def spiffe_id(domain: str, name: str) -> str:
    """Return the agent's SPIFFE id (https://spiffe.io, SPIFFE-ID, 2)."""
    return f"spiffe://{domain}/agent/{name}"


def agent_host(domain: str, name: str) -> str:
    """Return the name that a front checks when it connects to the agent."""
    return f"{name}.agents.{domain}"


def root(key: PrivateKey, *, serial: int, now: dt.datetime) -> x509.Certificate:
    """Make a root for ``key``. Its name ends with eight digits of its key, so that two roots never have the same."""
    subject = _authority_name("root", key.public_key())
    builder = _builder(key.public_key(), subject, subject, serial, (now - AUTHORITY_SKEW, now + ROOT_LIFETIME))
    return _authority(builder, key.public_key(), path_length=1).sign(key, _digest(key))


def intermediate(
    public_key: PublicKey, issuer: Issuer, permitted: Permitted, *, serial: int, now: dt.datetime
) -> x509.Certificate:
    """Make an intermediate that may sign what is ``permitted`` and nothing else.

    The extended key usage binds what lies below (as browsers, Go and OpenSSL read it), so a stolen intermediate signs
    no mail and no code.
    """
    subject = _authority_name("intermediate", public_key)
    validity = _within(issuer.certificate, now - AUTHORITY_SKEW, now + INTERMEDIATE_LIFETIME)
    builder = _builder(public_key, subject, issuer.certificate.subject, serial, validity)
    return (
        _authority(builder, public_key, path_length=0)
        .add_extension(permitted.extension(), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USAGES["agent"]), critical=False)
        .add_extension(authority_key_id(issuer.certificate), critical=False)
        .sign(issuer.key, _digest(issuer.key))
    )


def leaf(profile: Profile, public_key: PublicKey, issuer: Issuer, *, serial: int, now: dt.datetime) -> x509.Certificate:
    """Make a leaf. Its subject is the first DNS name where it fits, and empty otherwise."""
    subject = _leaf_name(profile.names)
    validity = _within(issuer.certificate, now - SKEW, now + profile.lifetime)
    builder = _builder(public_key, subject, issuer.certificate.subject, serial, validity)
    encipher = isinstance(public_key, rsa.RSAPublicKey)  # TLS 1.2 key exchange of old clients of a service
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True, key_encipherment=encipher), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USAGES[profile.kind]), critical=False)
        .add_extension(profile.names.extension(), critical=not list(subject))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(authority_key_id(issuer.certificate), critical=False)
        .sign(issuer.key, _digest(issuer.key))
    )


def authority_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return the issuer's key id as what it signs names it. A root that was brought along may have an id of its own."""
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def key_id(certificate: x509.Certificate) -> str:
    """Return the certificate's subject key identifier, in hex."""
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of the DER, in hex: what people compare and agents pin."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def authority_id(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of the public key (SubjectPublicKeyInfo, DER), in hex.

    It names an authority by its key: certificates that widen what it may sign, or prolong it, share it.
    """
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()


def _within(issuer: x509.Certificate, begins: dt.datetime, ends: dt.datetime) -> Validity:
    return max(begins, issuer.not_valid_before_utc), min(ends, issuer.not_valid_after_utc)


def _builder(
    public_key: PublicKey, subject: x509.Name, issuer: x509.Name, serial: int, validity: Validity
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(validity[0].replace(microsecond=0))
        .not_valid_after(validity[1].replace(microsecond=0))
    )


def _authority(builder: x509.CertificateBuilder, public_key: PublicKey, *, path_length: int) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _authority_name(kind: str, public_key: PublicKey) -> x509.Name:
    own = x509.SubjectKeyIdentifier.from_public_key(public_key).digest.hex()
    return _common_name(f"CloudLunacy {kind} {own[:8]}")


def _leaf_name(names: Names) -> x509.Name:
    # Never an address or an agent's short name: OpenSSL holds a common name with a dot against the name constraints.
    fitting = [name for name in names.dns if len(name) <= _MAX_COMMON_NAME and not name.startswith("*")]
    return _common_name(fitting[0]) if fitting else x509.Name([])


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_encipherment=key_encipherment,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _digest(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384:
    return hashes.SHA384() if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size > 256 else hashes.SHA256()
