"""Whom a command trusts when it connects over TLS, and what it says when it does not.

With ``--data`` the roots are in the credential. With ``--server`` they are in a file, or known by the SHA-256 of one of
the certificates that the server presents, as agents do at enrolment; else the system's count.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from reconciler.errors import Broken, CloudLunacyError, Transient
from schemas.tls import WRONG_NAME, speaks_no_tls, untrusted

CA_FILE: Final = "CLOUDLUNACY_CA_FILE"
SECONDS: Final = 15.0
DAY: Final = 86_400.0
LEAST_DAYS: Final = 9.0
"""What the certificate of serve has left when its renewal has failed for a day."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Trust:
    """Roots (PEM), or the fingerprint of a certificate that will be presented; neither: the system's roots."""

    ca: str = ""
    sha256: str = ""

    @classmethod
    def of_file(cls, path: Path) -> Trust:
        """Read roots.

        Raises:
            Broken: when the file holds none.
        """
        try:
            content = path.read_text(encoding="ascii")
            ssl.create_default_context(cadata=content)
        except OSError as error:  # ssl.SSLError is one
            raise Broken(f"{path} holds no certificates (PEM): {error.strerror or error}.") from None
        except ValueError:
            content = ""
        if not _CERTIFICATE.search(content):
            raise Broken(f"{path} holds no certificates (PEM).")
        return cls(ca=content)

    @classmethod
    def of_fingerprint(cls, text: str) -> Trust:
        """Take a SHA-256 in hex, with or without colons.

        Raises:
            Broken: when it is none.
        """
        found = text.replace(":", "").strip().lower()
        if not _SHA256.fullmatch(found):
            raise Broken(
                "a SHA-256 fingerprint has 64 hexadecimal digits.", hint="cloudlunacy pki status --data DIR shows it."
            )
        return cls(sha256=found)

    @property
    def fingerprint(self) -> str:
        """What an agent should pin; none where that is not known."""
        roots = _CERTIFICATE.findall(self.ca)
        if self.sha256 or not roots:
            return self.sha256
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(roots[0])).hexdigest()

    def context(self, server: str) -> ssl.SSLContext:
        """Return what to verify ``server`` with; asks it for its certificates where only a fingerprint is known.

        Raises:
            Broken: when no certificate has the fingerprint.
            Transient: when the server cannot be asked.
        """
        ca = self.ca
        if self.sha256 and server.startswith("https:"):
            ca = _presented(server, self.sha256)
        context = ssl.create_default_context(cadata=ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.sha256:
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # what was pinned may be no root
        return context


def days_left(stream: Any, now: float) -> float | None:  # noqa: ANN401 - httpcore's NetworkStream
    """Return how long the certificate at the other end of a connection is good; None where there is none."""
    connection = None if stream is None else stream.get_extra_info("ssl_object")
    certificate = None if connection is None else connection.getpeercert()
    if not certificate:
        return None
    return (ssl.cert_time_to_seconds(certificate["notAfter"]) - now) / DAY


def presented(stream: Any) -> bytes:  # noqa: ANN401 - httpcore's NetworkStream
    """Return the certificate (DER) at the other end of a connection; nothing where there is none."""
    connection = None if stream is None else stream.get_extra_info("ssl_object")
    return b"" if connection is None else connection.getpeercert(True) or b""


def pin(certificate: bytes) -> str:
    """Return the key of a certificate as ``curl --pinnedpubkey`` takes it (RFC 7469, 2.4)."""
    from cryptography import x509  # noqa: PLC0415 - takes a while, and few commands need it
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    key = x509.load_der_x509_certificate(certificate).public_key()
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"sha256//{base64.b64encode(hashlib.sha256(encoded).digest()).decode()}"


def unreachable(server: str, error: Exception) -> CloudLunacyError:
    """Return what to tell of a connection that failed: whether it is about trust, about TLS, or about nobody there."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            hint = f"Give its authority with --ca-file, {CA_FILE} or --ca-sha256; on its own machine use --data."
            if cause.verify_code in WRONG_NAME:
                hint = "serve carries the names of --listen and --public-url."
            return Broken(untrusted(cause.verify_code, cause.verify_message, server), hint=hint)
        if isinstance(cause, ssl.SSLError) and speaks_no_tls(cause.reason or ""):
            plain = server.replace("https:", "http:", 1)
            return Broken(f"what answers at {server} speaks no TLS.", hint=f"If that is meant, use {plain}.")
    hint = "Is serve running?"
    if server.startswith("http:") and _was_hung_up_on(error):
        hint = f"It may expect TLS: try {server.replace('http:', 'https:', 1)}."
    return Transient(f"the control plane at {server} does not answer: {str(error).rstrip('.')}.", hint=hint)


def _was_hung_up_on(error: Exception) -> bool:
    # by name: httpx says it in two ways, and neither is an error of connecting
    return type(error).__name__ in ("RemoteProtocolError", "ReadError")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _presented(server: str, sha256: str) -> str:
    parts = urlsplit(server)
    host, port = parts.hostname or "", parts.port or 443
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent; what is found here is what verifies from then on
    try:
        with (
            socket.create_connection((host, port), SECONDS) as raw,
            context.wrap_socket(raw, server_hostname=host) as connection,
        ):
            chain = _chain(connection)
    except (OSError, ValueError) as error:
        raise unreachable(server, error) from None
    for certificate in chain:
        if hmac.compare_digest(hashlib.sha256(certificate).hexdigest(), sha256):
            return ssl.DER_cert_to_PEM_cert(certificate)
    raise Broken(
        f"{server} presents no certificate with the SHA-256 fingerprint that was given.",
        hint="Either the fingerprint is wrong, or this is not your control plane: do not go on.",
    )


def _chain(connection: Any) -> list[bytes]:  # noqa: ANN401  ssl.SSLSocket, with a method that 3.11 keeps to itself
    if hasattr(connection, "get_unverified_chain"):  # public from Python 3.13 on
        return list(connection.get_unverified_chain())
    return [
        ssl.PEM_cert_to_DER_cert(certificate.public_bytes())
        for certificate in connection._sslobj.get_unverified_chain()  # noqa: SLF001
    ]
