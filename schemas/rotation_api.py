"""Requests and answers of the API for keys that give way to others.

``POST /api/v1/pki/rotations``  begin one, or let one be urgent   :class:`RotationRequest` → :class:`RotationView`
``GET  /api/v1/pki/rotations``  what is under way                 → :class:`RotationList`
``POST /api/v1/pki/rotations/{subject}/cancellation``  give one up → :class:`RotationView`
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field

from schemas.base import Model

ROTATIONS_PATH: Final = "/api/v1/pki/rotations"
CANCELLATION_PATH: Final = "/api/v1/pki/rotations/{subject}/cancellation"
LONGEST_SECONDS: Final = 30 * 86_400.0

Subject = Literal["root", "intermediate", "access", "desired", "operator", "age"]
"""access: access tokens of agents; desired: documents; operator: the credential of the machine; age: sealed secrets."""


class RotationRequest(Model):
    subject: Subject
    tainted: bool = False
    """Others may know the key: replace at once what it signed, refuse its tokens, and wait for nobody who is away."""
    deadline_seconds: Annotated[float | None, Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)] = None
    """How long agents that do not acknowledge are waited for; none: three days, ten minutes for a tainted key."""


class RotationView(Model):
    """One that is under way."""

    subject: Subject
    phase: Literal["prepare", "distribute", "activate", "wait", "remove"]
    begun: datetime
    since: datetime
    """When the phase was entered."""
    tainted: bool
    actor: str
    """Who asked for it; empty where the key's age did."""
    waits_for: str = ""
    """A sentence; empty while it goes on by itself at once."""
    who: tuple[str, ...] = ()
    """The first of those that have not acknowledged."""
    how_many: int = 0
    until: datetime | None = None
    """When time alone brings it forward."""


class RotationList(Model):
    rotations: tuple[RotationView, ...]
    signing_since: dict[Subject, datetime]
    """Since when each key signs, as far as that is known."""
    server_certificate_ends: datetime | None = None
    """Of the control plane's own certificate."""
