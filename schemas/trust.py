"""Whom an agent trusts: the member ``trust`` in the spec of its own item (``Agent/<name>``).

It is a member and no item of its own because agents of every version take members that they do not know, and refuse a
document with a kind that they do not know. An agent that has applied it says so in the result of its item: the reason
is :data:`TRUST_APPLIED`, and the message ends with the digest of the member.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import ConfigDict, Field, StringConstraints

from schemas.base import Model
from schemas.jwk import JwkSet

MEMBER: Final = "trust"
TRUST_APPLIED: Final = "TrustApplied"
MAX_BUNDLE: Final = 32 * 1024

AuthorityId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of an authority's public key (SubjectPublicKeyInfo, DER), hex."""


class Trust(Model):
    """Roots and keys to believe, from the next connection and the next document on."""

    model_config = ConfigDict(extra="ignore")  # a newer control plane may say more

    bundle: Annotated[str, Field(max_length=MAX_BUNDLE)]
    """Roots (PEM). An agent that was told of another authority, such as a proxy's, keeps that for its connections."""
    jwks: JwkSet
    """The keys that sign documents."""
    retired: Annotated[tuple[AuthorityId, ...], Field(max_length=16)] = ()
    """Authorities under which the agent should have no certificate any more."""
    replace_within: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 0.0
    """Seconds over which agents spread asking for others."""
