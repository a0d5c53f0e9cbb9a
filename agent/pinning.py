"""TLS to a control plane whose authority is known by its SHA-256 fingerprint and nothing else.

The first connection verifies nothing and sends nothing: it only looks at the certificates that the server presents. The
one whose fingerprint was given becomes the only authority of every later connection, host name included.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import ssl
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from agent.keys import Unusable
from schemas.tls import UNKNOWN_AUTHORITY, speaks_no_tls, untrusted

SECONDS: Final = 15.0
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Untrusted(OSError):
    """The other side is there, and is not whom we trust; trying again changes that only if the other side does."""

    unknown_authority = False
    """Its certificate is of an authority that is not trusted here."""


def explained(error: BaseException, server: str) -> Untrusted | None:
    """Return what to say of a connection that TLS failed on; None where it failed for another reason."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            found = Untrusted(untrusted(cause.verify_code, cause.verify_message, server))
            found.unknown_authority = cause.verify_code in UNKNOWN_AUTHORITY
            return found
        if isinstance(cause, ssl.SSLError) and speaks_no_tls(cause.reason or ""):
            return Untrusted(f"what answers at {server} speaks no TLS.")
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def context_for(ca_pem: str) -> ssl.SSLContext:
    """Return a context that trusts these certificates and no others, TLS 1.2 or newer, host names checked."""
    context = ssl.create_default_context(cadata=ca_pem)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the pinned authority may be an intermediate
    return context


async def presented_authority(url: str, sha256: str) -> str:
    """Return the PEM of the certificate with this fingerprint (hex, of the DER) among those that ``url`` presents.

    Raises:
        Unusable: when there is none.
        OSError: when the server cannot be reached or speaks no TLS.
    """
    wanted = sha256.replace(":", "").strip().lower()
    if not _SHA256.fullmatch(wanted):
        raise Unusable("A SHA-256 fingerprint has 64 hexadecimal digits; this one has not.")
    parts = urlsplit(url)
    try:
        presented = await _presented(parts.hostname or "", parts.port or 443)
    except ssl.SSLError as error:
        raise explained(error, url) or error from None
    for certificate in presented:
        if hmac.compare_digest(hashlib.sha256(certificate).hexdigest().encode(), wanted.encode()):
            return ssl.DER_cert_to_PEM_cert(certificate)
    raise Unusable(
        f"{parts.hostname} presents no certificate with the SHA-256 fingerprint that was given. "
        "Either the fingerprint is wrong, or this is not your control plane: do not go on."
    )


async def _presented(host: str, port: int) -> Sequence[bytes]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with asyncio.timeout(SECONDS):
        _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
        chain = _chain(writer.get_extra_info("ssl_object"))
        writer.transport.abort()
    return chain


def _chain(connection: Any) -> list[bytes]:  # noqa: ANN401  ssl.SSLObject, with a method that 3.11 keeps to itself
    if hasattr(connection, "get_unverified_chain"):  # public from Python 3.13 on
        return list(connection.get_unverified_chain())
    return [
        ssl.PEM_cert_to_DER_cert(certificate.public_bytes())
        for certificate in connection._sslobj.get_unverified_chain()  # noqa: SLF001
    ]
