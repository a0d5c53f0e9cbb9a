"""Certificate signing requests, good ones and hostile ones, made without the code under test."""

from __future__ import annotations

import base64
import datetime as dt
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.openssl import run
from tests.support.tokens import new_key


def request(key: Any = None, *extensions: x509.ExtensionType, name: str = "", digest: Any = None) -> str:
    """Return a request in PEM, signed by ``key``."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    builder = x509.CertificateSigningRequestBuilder(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    key = key or new_key()
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else digest or hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()


def greedy(key: Any, *, agent: str, domain: str) -> str:
    """Ask for all that one may not have: other names, another agent's identity, to be an authority."""
    return request(
        key,
        x509.SubjectAlternativeName(
            [
                x509.DNSName("www.example.com"),
                x509.DNSName(f"{agent}.agents.{domain}"),
                x509.UniformResourceIdentifier(f"spiffe://{domain}/agent/{agent}"),
            ]
        ),
        x509.BasicConstraints(ca=True, path_length=5),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),
        name=f"{agent}.agents.{domain}",
    )


def forged() -> str:
    """Return a request for one key whose signature is by another."""
    good, other = request(), request()
    one = x509.load_pem_x509_csr(good.encode()).public_bytes(serialization.Encoding.DER)
    two = x509.load_pem_x509_csr(other.encode())
    body = x509.load_pem_x509_csr(good.encode()).tbs_certrequest_bytes
    signature = two.signature
    tail = bytes.fromhex("300a06082a8648ce3d040302") + bytes([3, len(signature) + 1, 0]) + signature
    content = body + tail
    assert one.startswith(b"0\x81")
    return _pem(b"0\x81" + bytes([len(content)]) + content)


def rsa_512() -> str:
    """Return a request with a key that can be factored; made by openssl, because ours refuses to make one."""
    made = run("req", "-new", "-newkey", "rsa:512", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=x")
    assert "BEGIN CERTIFICATE REQUEST" in made.text, made.text
    return made.text[made.text.index("-----BEGIN CERTIFICATE REQUEST") :]


def bad_requests() -> dict[str, str]:
    """What is no request that an agent may make, by what is wrong with it."""
    good = request()
    return {
        "nothing": "",
        "garbage": "garbage \x00 \ud7ff",
        "not base64": "-----BEGIN CERTIFICATE REQUEST-----\n!!!!\n-----END CERTIFICATE REQUEST-----\n",
        "cut off": good[: len(good) // 2],
        "a certificate": _certificate(),
        "a private key": _private_key(),
        "signed by another key": forged(),
        "RSA 512": rsa_512(),
        "RSA 2048": request(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        "P-384": request(ec.generate_private_key(ec.SECP384R1())),
        "Ed25519": request(ed25519.Ed25519PrivateKey.generate()),
    }


def _certificate() -> str:
    key, name = new_key(), x509.Name([])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _private_key() -> str:
    return (
        new_key()
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )


def _pem(der: bytes) -> str:
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE REQUEST-----\n"
