"""Why a TLS connection cannot be had, in words that help; agent and commands say the same. Pure.

The numbers are those of OpenSSL's ``X509_verify_cert`` (openssl-verification-options(1), "DIAGNOSTICS"), the reasons
those of its error queue, as :class:`ssl.SSLError` carries them.
"""

from __future__ import annotations

from typing import Final

_NOT_YET: Final = 9
_EXPIRED: Final = 10
WRONG_NAME: Final = frozenset({62, 64})
"""Host name, IP address."""
UNKNOWN_AUTHORITY: Final = frozenset({2, 18, 19, 20, 21})
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"})


def untrusted(verify_code: int, verify_message: str, server: str) -> str:
    """Return why a certificate was not accepted, and what to do."""
    if verify_code in UNKNOWN_AUTHORITY:
        return (
            f"{server} presents a certificate of an authority that is not trusted here. Either it is not your control "
            "plane, or its authority is another one by now."
        )
    if verify_code == _EXPIRED:
        return f"the certificate of {server} has expired, or the clock of this machine is wrong."
    if verify_code == _NOT_YET:
        return f"the certificate of {server} is not valid yet; the clock of this machine seems to be behind."
    if verify_code in WRONG_NAME:
        return f"the certificate of {server} is for other names. Connect by a name that it carries."
    return f"the certificate of {server} is not accepted: {verify_message or f'OpenSSL says {verify_code}'}."


def speaks_no_tls(reason: str) -> bool:
    """Say whether a handshake failed because the other side speaks plain HTTP."""
    return reason in _NO_TLS
