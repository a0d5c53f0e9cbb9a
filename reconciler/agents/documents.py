"""The signed envelope of an agent's desired state: a compact JWS (RFC 7515) around a ``schemas.session.Document``.

PURE: the key stays with whoever hands in the signer, the clock with the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from reconciler.errors import Rejected
from schemas.session import DESIRED_TYPE, MAX_DOCUMENT, Document, Item, digest_of_items

LIFETIME: Final = timedelta(days=7)
"""How long a document may wait to be received. Long, so that a clock that is two days wrong expires nothing."""
_FRAME: Final = 128
"""Bytes of the message around the JWS, generously."""


class Signer(Protocol):
    """Signs with the control plane's current key."""

    def sign(self, payload: bytes, *, typ: str) -> str:
        """Return a compact JWS whose header has exactly ``alg`` ES256, ``typ`` and ``kid``."""
        ...


@dataclass(frozen=True, slots=True)
class WantedDocument:
    """What one agent should have; ``digest`` is ``schemas.session.digest_of_items(items())``."""

    generation: int
    """In which the document last changed."""
    revision: str
    digest: str
    items: Callable[[], tuple[Item, ...]] = field(compare=False)
    """Makes them. Most documents are never signed: after a restart, nearly every agent has its document already."""


def sign_document(agent: str, wanted: WantedDocument, signer: Signer, now: datetime) -> str:
    """Return the JWS for one agent. ``now`` is aware.

    Raises:
        Rejected: ``DocumentTooLarge`` or ``DocumentChanged``, when no agent would take it.
    """
    items = wanted.items()
    if digest_of_items(items) != wanted.digest:
        raise Rejected(
            f'The desired state of agent "{agent}" is not what was published: this version says more, or less.',
            reason="DocumentChanged",
            hint="It is published anew by itself.",
        )
    document = Document(
        agent=agent,
        generation=wanted.generation,
        revision=wanted.revision,
        issued_at=now,
        expires_at=now + LIFETIME,
        digest=wanted.digest,
        items=items,
    )
    jws = signer.sign(document.model_dump_json(by_alias=True).encode(), typ=DESIRED_TYPE)
    if len(jws) + _FRAME > MAX_DOCUMENT:
        raise Rejected(
            f'The desired state of agent "{agent}" takes {len(jws)} bytes, more than {MAX_DOCUMENT - _FRAME}.',
            reason="DocumentTooLarge",
            hint="Spread its deployments over more agents.",
        )
    return jws
