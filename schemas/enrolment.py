"""Requests and answers of the API for enrolment and tokens.

``POST /api/v1/enrolment-tokens``          an operator makes a one-time token      → :class:`NewToken`
``POST /api/v1/agents/enrol``              an agent enrols its key                 → :class:`Enrolment`, 201 or 202
``GET  /api/v1/agents/enrolments/{id}``    by a DPoP proof of the same key         → :class:`Enrolment`
``POST /api/v1/agents/token``              RFC 6749 with an RFC 7523 assertion     → :class:`TokenAnswer`
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, SecretStr, StringConstraints

from schemas.agent import Capability
from schemas.base import Model
from schemas.certificates_api import SigningRequest
from schemas.jwk import JwkSet, PublicJwk
from schemas.names import Address, Duration, LabelKey, LabelValue, Name, Thumbprint

TOKENS_PATH: Final = "/api/v1/enrolment-tokens"
ENROL_PATH: Final = "/api/v1/agents/enrol"
ENROLMENTS_PATH: Final = "/api/v1/agents/enrolments"
TOKEN_ENDPOINT_PATH: Final = "/api/v1/agents/token"  # noqa: S105  a path
MAX_TOKEN_TTL: Final = 15 * 60.0
"""Seconds that an enrolment token may live."""

CompactJws = Annotated[str, StringConstraints(max_length=4096)]
Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}$")]


class NewTokenRequest(Model):
    """Ask for a token. ``ttl`` is at most 15 m."""

    agent: Name
    ttl: Duration = "15m"


class NewToken(Model):
    """The only time that the token is shown. ``expiresAt`` is in POSIX seconds."""

    token: Annotated[str, Field(repr=False)]
    id: str
    agent: Name
    expires_at: float


class EnrolmentRequest(Model):
    """What a new agent sends. ``proof`` is a JWS by the private part of ``publicKey``, see ``schemas.tokens``."""

    token: Annotated[SecretStr, Field(max_length=256)]
    """``id.secret``"""
    name: Name
    public_key: PublicJwk
    proof: CompactJws
    address: Address
    """Where Traefik reaches the agent. Counts only where the repository does not say it already."""
    capabilities: Annotated[tuple[Capability, ...], Field(max_length=8)] = ()
    """As the address."""
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = {}
    """As the address; never a label by which a team selects its agents."""
    version: Version = "0"
    csr: SigningRequest | None = None
    """For the agent's first certificate; its key is not the one of ``publicKey``."""


EnrolmentState = Literal["committed", "pending", "proposed", "conflicted"]


class Enrolment(Model):
    """Where an enrolment stands.

    committed: on the branch in ``revision``; pending: durably queued; proposed: on a branch of its own, waiting to be
    merged; conflicted: the repository did not allow it, ``message`` says why.
    """

    state: EnrolmentState
    name: Name
    thumbprint: Thumbprint
    revision: str | None = None
    status_url: str
    message: str = ""
    issuer: str
    """Public URL of the control plane; audience of assertions."""
    token_endpoint: str
    jwks: JwkSet
    """Keys that sign the agent's documents."""
    certificate: str | None = None
    """Leaf and chain, PEM: once committed, and where the request had a ``csr``. Without, ask for one later."""
    bundle: str | None = None
    """The roots to trust, PEM; comes with the certificate."""


class TokenAnswer(Model):
    """RFC 6749, 5.1; the names are the RFC's."""

    model_config = ConfigDict(alias_generator=None)

    access_token: Annotated[str, Field(repr=False)]
    token_type: Literal["DPoP"] = "DPoP"  # noqa: S105
    expires_in: int
    scope: str
