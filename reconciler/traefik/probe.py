"""Which certificate a front presents: one handshake of TLS, in which nothing is checked and nothing is said."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from typing import Final

from reconciler.errors import Transient
from schemas.text import visible

PROBE_SECONDS: Final = 3.0
PROBE_LABEL: Final = "cloudlunacy-probe"
"""Takes the place of the star: for a wildcard any name does, and this one nobody needs."""


def probe_name(names: tuple[str, ...]) -> str:
    """Return the name to ask for: an exact one where there is one, because it comes before every wildcard."""
    exact = next((name for name in names if not name.startswith("*.")), None)
    return exact or f"{PROBE_LABEL}{names[0][1:]}"


async def served_leaf(address: tuple[str, int], name: str, *, seconds: float = PROBE_SECONDS) -> str:
    """Return the SHA-256 of the leaf that is presented to a client that asks for ``name``, as hex.

    Raises:
        Transient: there was no handshake.
    """
    host, port = address
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, port, ssl=_unchecked(), server_hostname=name)
    except TimeoutError:
        raise _failed(f"no handshake within {seconds:g} s") from None
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise _failed(visible(getattr(error, "strerror", None) or str(error))[:200]) from None
    try:
        connection = writer.get_extra_info("ssl_object")
        leaf = connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLObject) else None
    finally:
        writer.transport.abort()
    if not leaf:
        raise _failed("no certificate")
    return hashlib.sha256(leaf).hexdigest()


def _failed(why: str) -> Transient:
    return Transient(f"{why}.", reason="ProbeFailed")


def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
