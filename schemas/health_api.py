"""What the API says of backends, and the requests by which operators keep requests away from an agent.

``POST /api/v1/agents/{name}/drain``    no requests for what runs there  :class:`DrainRequest` → :class:`AgentDrain`
``POST /api/v1/agents/{name}/undrain``  requests again                   → :class:`AgentDrain`
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from schemas.access_api import Lifetime, Reason
from schemas.base import Model

DRAIN_PATH: Final = "/api/v1/agents/{name}/drain"
UNDRAIN_PATH: Final = "/api/v1/agents/{name}/undrain"
Presence = Literal["Connected", "Silent", "Unknown", "Drained"]
"""``Silent``: not connected, and its time-out has not passed; ``Unknown``: it has, or the agent was never there."""


class EndpointHealth(Model):
    """A port of an agent, as git declares it, of which something is known."""

    port: int
    actual: int
    """Where it really answers."""
    deployment: str = ""
    """``<team>/<name>``; empty where the port is of none."""
    verdict: Literal["healthy", "unhealthy", "starting", "stopped", "unknown", "unreachable"]
    in_service: bool
    """Fronts send requests there."""
    since: datetime
    """When it came into service, or went out."""
    reason: str = ""
    """Why it is out."""


class Drain(Model):
    """Somebody keeps requests away."""

    by: str
    since: datetime
    until: datetime | None = None
    """None: until somebody ends it."""
    reason: str = ""


class AgentHealth(Model):
    """How an agent is heard, and how its endpoints are."""

    presence: Presence = "Unknown"
    drain: Drain | None = None
    endpoints: tuple[EndpointHealth, ...] = ()


class DrainRequest(Model):
    """Keep requests away from an agent, for so long; without it until somebody ends it."""

    lasting: Lifetime | None = None
    reason: Reason = ""


class AgentDrain(Model):
    name: str
    drain: Drain | None = None
    """None: the agent is not drained (any more)."""
    changed: bool = True
    """False: it was so before."""
