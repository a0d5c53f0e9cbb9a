"""Whether the authority may sign names already; where a person has to see to that, who asks is told to come back."""

from __future__ import annotations

import datetime as dt
from typing import Final

from reconciler.errors import Refused
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import Names, covers, permitted_for

OFFLINE_SECONDS: Final = 60.0
"""Retry-After while a person has to sign."""


def require_permitted(authority: Authority, domain: str, names: Names, now: dt.datetime) -> None:
    """See to it that ``names`` may be signed. What is not permitted yet is, when its first certificate is asked for.

    Raises:
        Refused: 503 ``domain-not-permitted``, while that waits for a person.
    """
    if covers(authority.permitted(), names):
        return
    # What waits already may be more than this, and must not be forgotten.
    wanted = permitted_for(domain=domain, hostnames=names.dns)
    waiting = authority.outstanding() or authority.ensure_permitted(wanted, now)
    if waiting is not None:
        raise Refused(
            f"The authority may not sign for {domain if names.uris else names.dns[0]} yet.",
            status=503,
            code="domain-not-permitted",
            hint=f"{waiting.message} {waiting.hint}",
            retry_after=OFFLINE_SECONDS,
        )
