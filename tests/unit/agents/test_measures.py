"""Numbers of agents on their way into the history: rates from counters, and nothing that git does not place there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reconciler.agents.measures import MAX_DEPLOYMENTS, Measures, measured
from schemas.observation import DeploymentUsage


class Sampled:
    def __init__(self) -> None:
        self.samples: list[tuple[str, float, Mapping[str, float]]] = []

    def sample(self, subject: str, now: float, names: Sequence[str], values: Mapping[str, float]) -> None:
        self.samples.append((subject, now, values))


def usage(name: str = "web", seconds: float = 1.0) -> DeploymentUsage:
    return DeploymentUsage(team="shop", name=name, cpu_seconds=seconds, memory_bytes=2048, pids=3, restarts=1)


def test_processor_time_becomes_processors() -> None:
    """Five seconds of it in ten are half a processor; of a first message, and of a new instance, none is known."""
    first = measured(usage(seconds=100.0), None, 1000.0)
    assert "cpu_cores" not in first.values
    second = measured(usage(seconds=105.0), first, 1010.0)
    assert second.values == {"cpu_cores": 0.5, "memory_bytes": 2048.0, "pids": 3.0, "restarts": 1.0}
    assert "cpu_cores" not in measured(usage(seconds=0.2), second, 1020.0).values
    assert "cpu_cores" not in measured(usage(seconds=106.0), second, 1010.0).values


def test_only_what_git_places_there_is_kept() -> None:
    """An agent that tells of deployments which it does not have fills nothing with them."""
    sampled = Sampled()
    measures = Measures(sampled, lambda agent, team, name: (agent, team, name) == ("vps-1", "shop", "web"))
    measures.usage("vps-1", [usage("web"), usage("made-up"), usage("web", 9.0)], 1000.0)
    assert [subject for subject, _, _ in sampled.samples] == ["vps-1/shop/web"]
    assert measures.usage_of("vps-1").keys() == {("shop", "web")}
    assert measures.usage_of("vps-2") == {}


def test_deployments_of_an_agent_are_bounded() -> None:
    """The first by name are kept, whichever order they are told in."""
    sampled = Sampled()
    measures = Measures(sampled, lambda *_: True)
    names = [f"app-{number:03}" for number in range(100)]
    measures.usage("vps-1", [usage(name) for name in reversed(names)], 1000.0)
    assert [name for _, name in measures.usage_of("vps-1")] == names[:MAX_DEPLOYMENTS]
    assert len(sampled.samples) == MAX_DEPLOYMENTS


def test_agents_that_are_gone_are_forgotten() -> None:
    """And those that are still there are not."""
    measures = Measures(Sampled(), lambda *_: True)
    measures.usage("vps-1", [usage()], 1000.0)
    measures.usage("vps-2", [usage()], 1000.0)
    measures.forget(frozenset({"vps-2"}))
    assert (measures.usage_of("vps-1"), len(measures.usage_of("vps-2"))) == ({}, 1)
