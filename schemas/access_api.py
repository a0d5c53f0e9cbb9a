"""Requests and answers of the API for who may do what.

``POST /api/v1/agents/{name}/revocation``  lock an agent out   :class:`RevocationRequest` → :class:`AgentRevocation`
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import StringConstraints

from schemas.base import Model

REVOCATION_PATH: Final = "/api/v1/agents/{name}/revocation"

Reason = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
"""One line of text for people."""


class RevocationRequest(Model):
    """Lock an agent out. ``quarantine``: keep its file, with ``state: quarantined``, instead of deleting it."""

    quarantine: bool = False
    reason: Reason = ""


class AgentRevocation(Model):
    """The agent is locked out; ``state`` says how far git has been told.

    committed: the branch says so in ``revision``; pending: durably queued; proposed: on the branch ``proposal``, which
    waits to be merged; conflicted: the file could not be edited, ``message`` says why. In each the agent stays out.
    """

    name: str
    state: Literal["committed", "pending", "proposed", "conflicted"]
    quarantine: bool
    file: str
    revision: str = ""
    proposal: str = ""
    message: str = ""
    disconnected: bool
    """It was connected, and is no more."""
    certificates: int | None = None
    """How many of its certificates were revoked just now; None where the disk did not take it yet."""
