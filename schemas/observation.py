"""What an agent sees of its deployments, as it tells the control plane: where each answers, and how it is."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from schemas.base import Model
from schemas.names import Name, Port
from schemas.text import visible

Health = Literal["healthy", "unhealthy", "starting", "stopped", "unknown"]
"""``unknown``: nobody can tell just now, for example because the engine does not answer."""
MAX_OBSERVED: Final = 2000
"""Deployments of one agent."""


class ObservedPort(Model):
    """``declared``: the ``host`` port of the Deployment; ``actual``: the one that serves it now. They differ while, and
    after, two versions were there at once.
    """

    declared: Port
    actual: Port


class DeploymentObservation(Model):
    team: Name
    name: Name
    health: Health
    """Of the instance that serves."""
    ports: Annotated[tuple[ObservedPort, ...], Field(max_length=64)] = ()
    """Empty: nothing serves; where the health is unknown, nobody can tell what does."""
    digest: Annotated[str, Field(max_length=80)] = ""
    """Of what the serving instance is made of."""
    step: Annotated[str, Field(max_length=64), AfterValidator(visible)] = ""
    """Where its roll-out is; empty when it is at rest."""


class DeploymentUsage(Model):
    """What a deployment has used since its serving instance began, and uses now."""

    team: Name
    name: Name
    cpu_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    memory_bytes: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0
    pids: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0
    restarts: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0
