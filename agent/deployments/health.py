"""How healthy an instance is, by what probes of it said. PURE: times are monotonic seconds.

A probe that fails within the start period says nothing yet. After it, ``failures`` in a row make an instance unhealthy;
it takes :data:`RECOVERED` good ones in a row until such an instance counts as healthy again, so that it does not flap.
Where nothing was heard for a while nothing is known, which is not the same as bad.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, Self

from schemas.deployment import DeploymentHealthCheck
from schemas.names import seconds

HealthState = Literal["starting", "healthy", "unhealthy", "unknown"]
RECOVERED: Final = 2
_STALE_INTERVALS: Final = 3.0


class Health(NamedTuple):
    state: HealthState
    detail: str = ""
    """What the last failed probe said, such as "HTTP 500 from /health"."""


UNKNOWN: Final = Health("unknown")
STARTING: Final = Health("starting")


class Probe(NamedTuple):
    """The result of one probe."""

    good: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """Times are in seconds."""

    failures: int
    start_period: float
    interval: float
    timeout: float

    @classmethod
    def of(cls, check: DeploymentHealthCheck) -> Self:
        return cls(check.failures, seconds(check.start_period), seconds(check.interval), seconds(check.timeout))

    @property
    def stale(self) -> float:
        return _STALE_INTERVALS * (self.interval + self.timeout)


@dataclass(frozen=True, slots=True)
class Track:
    """What is known of one start of an instance. ``since``: when it was first seen running."""

    since: float
    heard: float
    health: Health = STARTING
    failed: int = 0
    """In a row, outside the start period."""
    passed: int = 0
    """In a row."""

    def probed(self, probe: Probe, rules: Rules, now: float) -> Track:
        """Take the result of one probe."""
        if probe.good:
            passed = self.passed + 1
            ill = self.health.state == "unhealthy" and passed < RECOVERED
            health = self.health if ill else Health("healthy")
            return replace(self, heard=now, failed=0, passed=passed, health=health)
        if self.health.state == "starting" and now - self.since < rules.start_period:
            return replace(self, heard=now, passed=0, health=Health("starting", probe.detail))
        failed = self.failed + 1
        state = "unhealthy" if failed >= rules.failures else self.health.state
        return replace(self, heard=now, failed=failed, passed=0, health=Health(state, probe.detail))

    def at(self, rules: Rules, now: float) -> Health:
        """Return the health at a time; unknown when nobody has probed for too long."""
        return Health("unknown", self.health.detail) if now - self.heard > rules.stale else self.health


def by_running(since: float, settle: float, now: float) -> Health:
    """Return the health of an instance without a check: it has to run for ``settle`` seconds."""
    return Health("healthy") if now - since >= settle else STARTING
