"""How a deployment is rolled out, as ``cloudlunacy deploy status`` shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from schemas.base import Model
from schemas.names import Name
from schemas.status import RolloutPlace, RolloutState

ROLLOUT_PATH: Final = "/api/v1/deployments/{team}/{name}/rollout"
PAUSE_PATH: Final = "/api/v1/deployments/{team}/{name}/rollout/pause"
RESUME_PATH: Final = "/api/v1/deployments/{team}/{name}/rollout/resume"


class RolloutOnAgent(Model):
    """One agent. ``reason`` and ``message`` are what it said last of the version that it has."""

    agent: Name
    place: RolloutPlace
    version: str = ""
    """Digest of what its document has it run, empty where that is nothing."""
    state: Literal["Applied", "Progressing", "Failed", "Unknown"] = "Unknown"
    reason: str = ""
    message: str = ""
    since: datetime | None = None
    """When it first said so."""
    connected: bool = False


class RolloutStatus(Model):
    team: Name
    name: Name
    state: RolloutState
    message: str = ""
    revision: str = ""
    """That brought the newest version, where it is still on its way."""
    version: str
    """Digest of the newest version."""
    paused_by: str = ""
    max_unavailable: int
    agents: tuple[RolloutOnAgent, ...] = ()
