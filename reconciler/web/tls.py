"""TLS of the control plane's own listener, and what it costs.

TLS 1.2 and 1.3 with the suites of Mozilla's intermediate profile (https://wiki.mozilla.org/Security/Server_Side_TLS),
no compression, no renegotiation. A certificate is swapped on the living context: connections that are open keep theirs,
and the next handshake gets the new one.
"""

from __future__ import annotations

import secrets
import ssl
from asyncio import sslproto
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.errors import Broken
from reconciler.pki.private_files import write_new

HANDSHAKE_SECONDS: Final = 10.0
"""A peer that has not finished its handshake by then is dropped."""
GOODBYE_SECONDS: Final = 5.0
"""How long a peer may take to say goodbye too."""
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; those of 1.3 are all good."""
READ_BUFFER: Final = 16 * 1024
"""Bytes, one record of TLS. asyncio sets 256 KiB aside for each connection, which is most of what an agent costs."""


def server_context() -> ssl.SSLContext:
    """Return a context that has no certificate yet; see :func:`present`."""
    # No argument of asyncio's sets it. Ours is a process that serves, and all its connections are small.
    sslproto.SSLProtocol.max_size = READ_BUFFER
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


def present(context: ssl.SSLContext, chain: bytes, key: ec.EllipticCurvePrivateKey, directory: Path) -> None:
    """Let new connections get this chain (PEM, the leaf first).

    OpenSSL reads keys from files only, so one lies in ``directory`` for a moment, encrypted with a passphrase that is
    nowhere else. It is tried on another context first: one that fails leaves the living one half changed.

    Raises:
        Broken: when the two do not belong together, or the file cannot be written.
    """
    passphrase = secrets.token_bytes(32).hex().encode()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase),
    )
    path = directory / f".presenting-{secrets.token_hex(8)}"
    try:
        write_new(path, chain + pem)
        for one in (server_context(), context):
            one.load_cert_chain(path, password=passphrase)
    except OSError as error:  # ssl.SSLError is one
        raise Broken(f"the server's certificate cannot be used: {error.strerror or error}.") from None
    finally:
        path.unlink(missing_ok=True)
