"""What agents measure, on its way into the history, and the newest of it at hand.

Only what git places on an agent is taken note of, and no more than :data:`MAX_DEPLOYMENTS` of them: an agent cannot
make up deployments to fill a disk or a monitoring system with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from schemas.metrics import KEPT_OF_DEPLOYMENTS, KEPT_OF_MACHINES
from schemas.observation import DeploymentUsage

MAX_DEPLOYMENTS: Final = 64
"""Of one agent whose usage is kept; those that come first by name."""


class Sampler(Protocol):
    """:class:`reconciler.store.history.History`."""

    def sample(self, subject: str, now: float, names: Sequence[str], values: Mapping[str, float]) -> None: ...


class Measured(NamedTuple):
    """Of one deployment on one agent. ``at``: POSIX seconds."""

    at: float
    cpu_seconds: float
    values: Mapping[str, float]
    """By the names of :data:`schemas.metrics.DEPLOYMENT`."""


def subject_of(agent: str, team: str = "", deployment: str = "") -> str:
    """Return the name under which the history keeps it."""
    return f"{agent}/{team}/{deployment}" if deployment else agent


def measured(usage: DeploymentUsage, before: Measured | None, now: float) -> Measured:
    """Turn what an instance used so far into what it uses now. A new instance begins anew, at first without a rate."""
    values = {
        "memory_bytes": float(usage.memory_bytes),
        "pids": float(usage.pids),
        "restarts": float(usage.restarts),
    }
    if before is not None and now > before.at and usage.cpu_seconds >= before.cpu_seconds:
        values["cpu_cores"] = round((usage.cpu_seconds - before.cpu_seconds) / (now - before.at), 6)
    return Measured(now, usage.cpu_seconds, values)


class Measures:
    """``placed`` says whether a deployment (team, name) is on an agent, by what is in service."""

    def __init__(self, history: Sampler, placed: Callable[[str, str, str], bool]) -> None:
        self._history = history
        self._placed = placed
        self._usage: dict[str, dict[tuple[str, str], Measured]] = {}

    def heartbeat(self, name: str, metrics: Mapping[str, float], now: float) -> None:
        """Take note of the numbers of a machine."""
        if metrics:
            self._history.sample(name, now, KEPT_OF_MACHINES, metrics)

    def usage(self, name: str, usages: Sequence[DeploymentUsage], now: float) -> None:
        """Take note of what all deployments of an agent use."""
        known, found = self._usage.get(name, {}), dict[tuple[str, str], Measured]()
        for usage in sorted(usages, key=lambda one: (one.team, one.name)):
            key = usage.team, usage.name
            if len(found) == MAX_DEPLOYMENTS:
                break
            if key in found or not self._placed(name, *key):
                continue
            one = found[key] = measured(usage, known.get(key), now)
            self._history.sample(subject_of(name, *key), now, KEPT_OF_DEPLOYMENTS, one.values)
        self._usage[name] = found

    def usage_of(self, name: str) -> Mapping[tuple[str, str], Measured]:
        """Return what each deployment (team, name) of an agent was said to use last."""
        return self._usage.get(name, {})

    def forget(self, known: frozenset[str]) -> None:
        """Forget agents that are not among these."""
        for name in self._usage.keys() - known:
            del self._usage[name]
