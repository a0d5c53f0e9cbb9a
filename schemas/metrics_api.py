"""Answers about the past: ``GET /api/v1/agents/{name}/metrics`` and ``/api/v1/deployments/{team}/{name}/metrics``."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pydantic import Field

from schemas.base import Model

AGENT_PATH: Final = "/api/v1/agents/{name}"
AGENT_METRICS_PATH: Final = "/api/v1/agents/{name}/metrics"
DEPLOYMENT_METRICS_PATH: Final = "/api/v1/deployments/{team}/{name}/metrics"
EXPOSITION_PATH: Final = "/metrics/agents"


class Points(Model):
    """One metric. All lists are equally long; a time without a point had no sample."""

    unit: str
    at: tuple[int, ...]
    """Start of each step, POSIX seconds."""
    samples: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class MetricsHistory(Model):
    """What was measured in each ``step`` seconds; coarser than asked for where the past is not kept as fine."""

    agent: str
    since: datetime = Field(alias="from")
    until: datetime = Field(alias="to")
    step: int
    series: dict[str, Points]


class DeploymentHistory(Model):
    team: str
    name: str
    agents: tuple[MetricsHistory, ...]
