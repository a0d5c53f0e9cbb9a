"""What is wrong now, and a test of a channel.

``GET  /api/v1/conditions``            → :class:`ConditionList`
``POST /api/v1/channels/{name}/test``  → ``schemas.api.Accepted``, 202
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from schemas.base import Model
from schemas.notifications import Severity

CONDITIONS_PATH: Final = "/api/v1/conditions"
CHANNEL_TEST_PATH: Final = "/api/v1/channels/{name}/test"


class ConditionView(Model):
    """Something that is not as it should be. ``type`` and ``subject`` name it (docs/notifications.md)."""

    type: str
    subject: str
    severity: Severity
    title: str
    message: str = ""
    team: str = ""
    since: datetime
    told: tuple[str, ...] = ()
    """Channels that were told."""
    link: str = ""
    """Path in the dashboard."""


class ConditionList(Model):
    conditions: tuple[ConditionView, ...]
    """The worst first, then the oldest."""
    next: str = ""
    """What ``after`` should say for the page behind this one; empty on the last."""
