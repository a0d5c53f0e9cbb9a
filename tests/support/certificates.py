"""Keys, an authority of its own, and certificates that ours would never make."""

from __future__ import annotations

import datetime as dt
import ssl
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from reconciler.pki.authority import profiles
from reconciler.pki.authority.names import Names, Permitted
from reconciler.pki.authority.profiles import Issuer, PrivateKey, Profile

NOW: Final = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
KEY: Final = ec.generate_private_key(ec.SECP256R1())
"""Makes no difference between certificates of tests that are about something else."""


def new_root(now: dt.datetime = NOW, key: PrivateKey | None = None) -> Issuer:
    own = key or ec.generate_private_key(ec.SECP256R1())
    return Issuer(profiles.root(own, serial=x509.random_serial_number(), now=now), own)


def new_intermediate(root: Issuer, permitted: Permitted, now: dt.datetime = NOW) -> Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    return Issuer(profiles.intermediate(key.public_key(), root, permitted, serial=serial, now=now), key)


def new_leaf(profile: Profile, issuer: Issuer, now: dt.datetime = NOW) -> x509.Certificate:
    return profiles.leaf(profile, KEY.public_key(), issuer, serial=x509.random_serial_number(), now=now)


def names(*hosts: str, uris: tuple[str, ...] = ()) -> Names:
    found = Names.of(hosts) if hosts else Names(uris=uris)
    return Names(found.dns, found.addresses, uris)


def csr(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    *,
    der: bool = False,
    extensions: tuple[x509.ExtensionType, ...] = (),
) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evil.example")])
    builder = x509.CertificateSigningRequestBuilder(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    encoding = serialization.Encoding.DER if der else serialization.Encoding.PEM
    return builder.sign(key, hashes.SHA256()).public_bytes(encoding)


def of_no_version(pem: str) -> str:
    """Return a certificate (the first of ``pem``) as one of a version that there is not, as a damaged one may be."""
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.DER)
    return ssl.DER_cert_to_PEM_cert(der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x48", 1))


def text(*certificates: x509.Certificate) -> str:
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)
