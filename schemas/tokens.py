"""What both ends must agree on about tokens and proofs: types, lifetimes, and how a request is named in a proof.

Four kinds of JWT go over the wire, each with a ``typ`` of its own so that none passes for another (RFC 8725, 3.11):

enrolment proof   the new agent's key signs token id and name: it holds the private part
client assertion  the agent's key signs who it is, for the token endpoint (RFC 7523)
access token      the control plane's key signs what the agent may do, bound to the agent's key (RFC 9068, RFC 7800)
DPoP proof        the agent's key signs one request, once (RFC 9449)

An operator's token is signed by the operator's own key and lives for minutes.
"""

from __future__ import annotations

import hashlib
from typing import Final
from urllib.parse import urlsplit

from schemas.jwk import encode

ENROLMENT_PROOF: Final = "cloudlunacy-enrolment+jwt"
CLIENT_ASSERTION: Final = "client-authentication+jwt"
ACCESS_TOKEN: Final = "at+jwt"  # noqa: S105  a type, not a token
DPOP_PROOF: Final = "dpop+jwt"
OPERATOR_TOKEN: Final = "cloudlunacy-operator+jwt"  # noqa: S105

ASSERTION_GRANT: Final = "client_credentials"
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
AGENT_PREFIX: Final = "agent:"
OPERATOR_PREFIX: Final = "operator:"
AGENT_SCOPE: Final = "agent"

LEEWAY: Final = 60.0
"""Seconds by which the clocks may differ."""
ACCESS_LIFETIME: Final = 600.0
ASSERTION_LIFETIME: Final = 60.0
PROOF_LIFETIME: Final = 60.0
"""A proof says when it was made; it is good for so long after that."""
OPERATOR_LIFETIME: Final = 300.0
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def target_uri(url: str) -> str:
    """Return ``htu`` of a request (RFC 9449, 4.2): no query, no fragment, RFC 3986 normal form.

    The opening of a WebSocket is an HTTP request (RFC 6455, 4.1), so ws counts as http and wss as https.

    Raises:
        ValueError: when it is no absolute URL of these four schemes, or one with credentials.
    """
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    if scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not an absolute http, https, ws or wss URL")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = "" if parts.port in (None, _DEFAULT_PORTS[scheme]) else f":{parts.port}"
    return f"{scheme}://{host}{port}{parts.path or '/'}"


def origin(url: str) -> str:
    """Return scheme, host and port of a URL, in the same normal form.

    Raises:
        ValueError: as :func:`target_uri`.
    """
    return "/".join(target_uri(url).split("/", 3)[:3])


def token_hash(access_token: str) -> str:
    """Return ``ath`` of a DPoP proof (RFC 9449, 4.2)."""
    return encode(hashlib.sha256(access_token.encode("ascii", "replace")).digest())
