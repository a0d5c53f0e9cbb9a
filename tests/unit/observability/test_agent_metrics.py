"""What Prometheus gets of agents: documented names, bounded in number."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from reconciler.observability.agent_metrics import Limits, OfAgent, render
from schemas.metrics import DEPLOYMENT, MACHINE

MACHINES = {name: one.text for name, one in MACHINE.items()}
MANY = Limits()
DEPLOYMENTS = {name: one.text for name, one in DEPLOYMENT.items()}


def agent(name: str, deployments: int = 1, **metrics: float) -> OfAgent:
    of = {("shop", f"app-{number}"): {"memory_bytes": 5.0, "made_up": 1.0} for number in range(deployments)}
    return OfAgent(name, 1000.0, {"Connected": "True", "Workloads": "False", "DataPlane": "Unknown"}, metrics, of)


def samples(agents: list[OfAgent], limits: Limits = MANY) -> dict[tuple[str, ...], float]:
    content, media_type = render(agents, MACHINES, DEPLOYMENTS, limits)
    assert media_type.startswith("text/plain")
    return {
        (one.name, *sorted(one.labels.values())): one.value
        for family in text_string_to_metric_families(content.decode())
        for one in family.samples
    }


def test_numbers_have_the_names_of_heartbeats() -> None:
    """Known ones are shown by agent; what an agent made up is not; what nobody knows has no sample."""
    found = samples([agent("vps-1", machine_load1=0.5, made_up=7.0)])
    assert found["cloudlunacy_machine_load1", "vps-1"] == 0.5
    assert found["cloudlunacy_deployment_memory_bytes", "app-0", "shop", "vps-1"] == 5.0
    assert found["cloudlunacy_agent_condition", "Connected", "vps-1"] == 1.0
    assert found["cloudlunacy_agent_condition", "Workloads", "vps-1"] == 0.0
    assert ("cloudlunacy_agent_condition", "DataPlane", "vps-1") not in found
    assert not [name for name in found if "made_up" in name[0]]


def test_the_number_of_series_is_bounded_and_said() -> None:
    """What does not fit is counted, so that nobody takes a part for the whole."""
    agents = [agent(f"vps-{number}", deployments=4, machine_load1=1.0) for number in range(5)]
    found = samples(agents, Limits(agents=3, deployments=10))
    assert len([name for name in found if name[0] == "cloudlunacy_machine_load1"]) == 3
    assert len([name for name in found if name[0] == "cloudlunacy_deployment_memory_bytes"]) == 10
    assert found["cloudlunacy_agents_not_shown",] == 2
    assert found["cloudlunacy_deployments_not_shown",] == 10


def test_every_metric_is_documented() -> None:
    """docs/metrics.md names each of them, with its unit."""
    page = Path("docs/metrics.md").read_text(encoding="utf-8")
    missing = [name for name in (*MACHINE, *DEPLOYMENT) if f"`{name}`" not in page]
    assert missing == []
