"""How the certificates of fronts and agents stand (``GET /api/v1/certificates``)."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from schemas.base import Model

LIST_PATH: Final = "/api/v1/certificates"
RETRY_PATH: Final = "/api/v1/certificates/{name}/retry"

CertificateState = Literal["Good", "Due", "Pending", "Expired", "Retained"]
"""Good: it is there, and nothing is to be done before ``next_look``.
Due: it is there and is to be replaced; ``reason`` says why, ``message`` what holds that up.
Pending: there is none yet; routes that need it wait.
Expired: it is there, past its end, and served for want of a better one.
Retained: no object wants it any more, and a route in service still needs it."""


class ServedLeaf(Model):
    """What one front presented to a client that asked for a name of the certificate, over TLS."""

    front: str
    name: str
    """The name that was asked for."""
    checked_at: datetime
    fingerprint: str = ""
    """SHA-256 of the leaf as hex; empty where there was none."""
    matches: bool = False
    """Whether it is the leaf that is published."""
    message: str = ""
    """Why there was none, or that it is another."""


class CertificateStatus(Model):
    """One certificate. Times are empty where there is none yet."""

    name: str
    """Of the Certificate object, or of an implicit certificate."""
    issuer: Literal["internal", "acme", "provided"]
    directory: str = ""
    """URL of the ACME server's directory."""
    dns_names: tuple[str, ...]
    not_before: datetime | None = None
    not_after: datetime | None = None
    """The earliest end of the chain."""
    fingerprint: str = ""
    """SHA-256 of the leaf as hex."""
    state: CertificateState
    reason: str = ""
    """Why it is to be issued or replaced, or what holds it up: one word."""
    message: str = ""
    """The same as a sentence."""
    next_look: datetime | None = None
    """When it is to be renewed, or when the next attempt may be made."""
    probe: tuple[ServedLeaf, ...] = ()
    """What fronts served when they were asked last."""


class CertificateList(Model):
    certificates: tuple[CertificateStatus, ...]
    """In order of name."""
