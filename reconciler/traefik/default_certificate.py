"""The certificate that a front shows for names that it does not know.

Without one Traefik makes an RSA key at every reload, which takes 50 to 200 ms: more than all the rest of the reload
of a small fleet. It is self-signed, names nothing and is trusted by nobody; its key protects nothing.
"""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from reconciler.desired.traefik_model import Certificate
from reconciler.errors import Broken

_FILE: Final = "default-certificate.pem"
_NAME: Final = "no such name"
_END: Final = "-----END CERTIFICATE-----\n"


def new_default_certificate() -> Certificate:
    """Make a key and a certificate for it, as PEM. Valid for ever (RFC 5280, 4.1.2.5), because nobody checks it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        "certFile": certificate.public_bytes(serialization.Encoding.PEM).decode(),
        "keyFile": pem.decode(),
    }


def load_or_create_default_certificate(directory: Path) -> Certificate:
    """Read the one in ``directory``, or make it (mode 0600), so that the published file changes only when objects do.

    Raises:
        Broken: when the directory cannot be written or read.
    """
    path = directory / _FILE
    try:
        text = path.read_text(encoding="ascii", errors="replace") if path.exists() else ""
        certificate, end, key = text.partition(_END)
        if end and key.startswith("-----BEGIN PRIVATE KEY-----"):
            return {"certFile": certificate + end, "keyFile": key}
        made = new_default_certificate()
        temporary = path.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(made["certFile"] + made["keyFile"])
        temporary.replace(path)
    except OSError as error:
        raise Broken(f"cannot keep the default certificate in {directory}: {error}") from None
    return made
