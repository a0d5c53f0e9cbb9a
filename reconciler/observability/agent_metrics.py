"""Numbers of agents and their deployments for Prometheus, at ``/metrics/agents``: names of agents are labels there.

So the number of series is bounded, and the endpoint asks for a token: ``/metrics`` has neither names nor callers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

CONDITION: Final = "cloudlunacy_agent_condition"


class OfAgent(NamedTuple):
    """What is known of an agent just now; what is stale is not among it."""

    name: str
    last_seen: float | None
    conditions: Mapping[str, str]
    """Type → ``True``, ``False`` or ``Unknown``."""
    metrics: Mapping[str, float]
    deployments: Mapping[tuple[str, str], Mapping[str, float]]
    """(team, name) → metric → value."""


class Limits(NamedTuple):
    agents: int = 500
    deployments: int = 2000
    """On all agents together."""


def render(agents: Iterable[OfAgent], names: Mapping[str, str], of_deployments: Mapping[str, str],
           limits: Limits) -> tuple[bytes, str]:  # fmt: skip
    """Return the exposition and its content type. ``names``, ``of_deployments``: metric → what it is.

    The first agents by name are in it; how many agents and deployments are not is a number of its own.
    """
    registry = CollectorRegistry()
    registry.register(_Families(sorted(agents), names, of_deployments, limits))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Families(Collector):
    def __init__(self, agents: list[OfAgent], names: Mapping[str, str], of_deployments: Mapping[str, str],
                 limits: Limits) -> None:  # fmt: skip
        self._agents = agents
        self._names = names
        self._of_deployments = of_deployments
        self._limits = limits

    def collect(self) -> Iterable[GaugeMetricFamily]:
        shown, left_out = self._agents[: self._limits.agents], self._agents[self._limits.agents :]
        seen = GaugeMetricFamily(
            "cloudlunacy_agent_last_seen_seconds", "When the agent was heard last, POSIX time.", labels=("agent",)
        )
        conditions = GaugeMetricFamily(
            CONDITION, "1 where it is good, 0 where it is not, no sample where nobody knows.", labels=("agent", "type")
        )
        machine = {
            name: GaugeMetricFamily(f"cloudlunacy_{name}", f"{text[0].upper()}{text[1:]}.", labels=("agent",))
            for name, text in self._names.items()
        }
        for agent in shown:
            if agent.last_seen is not None:
                seen.add_metric((agent.name,), agent.last_seen)
            for kind, status in agent.conditions.items():
                if status != "Unknown":
                    conditions.add_metric((agent.name, kind), float(status == "True"))
            for name, value in agent.metrics.items():
                if name in machine:
                    machine[name].add_metric((agent.name,), value)
        deployments = [
            ((agent.name, *key), values) for agent in shown for key, values in sorted(agent.deployments.items())
        ]
        yield from (seen, conditions, *machine.values())
        yield from self._deployments(deployments[: self._limits.deployments])
        beyond = max(0, len(deployments) - self._limits.deployments) + sum(len(one.deployments) for one in left_out)
        yield GaugeMetricFamily("cloudlunacy_agents_not_shown", "Agents beyond --agent-series.", value=len(left_out))
        yield GaugeMetricFamily(
            "cloudlunacy_deployments_not_shown", "Deployments beyond --deployment-series.", value=beyond
        )

    def _deployments(
        self, deployments: Iterable[tuple[tuple[str, ...], Mapping[str, float]]]
    ) -> Iterable[GaugeMetricFamily]:
        labels = ("agent", "team", "deployment")
        families = {
            name: GaugeMetricFamily(f"cloudlunacy_deployment_{name}", f"{text[0].upper()}{text[1:]}.", labels=labels)
            for name, text in self._of_deployments.items()
        }
        for key, values in deployments:
            for name, value in values.items():
                if name in families:
                    families[name].add_metric(key, value)
        return families.values()
