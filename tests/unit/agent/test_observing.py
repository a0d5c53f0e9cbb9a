"""What the agent tells of its deployments, and what it knows of what fronts have."""

from __future__ import annotations

from typing import Any, Final

import pytest

from agent.deployments.fronts import Serving, Standing
from agent.deployments.health import Health
from agent.deployments.workload import Key
from agent.observing import Observing, fitting, fitting_usage
from agent.services import Line
from agent.talk import Seen
from schemas.observation import DeploymentObservation, DeploymentUsage, ObservedPort
from schemas.session import MAX_AGENT_MESSAGE, Observation, Usage

KEY: Final = Key("shop", "web")
HEALTHY: Final = Health("healthy")


def standing(instance: str = "one", port: int = 8080, health: Health = HEALTHY, **more: Any) -> Standing:
    return Standing(Serving("a", {80: port}, health, instance), ((8080, port),), f"digest of {instance}", **more)


class Machine:
    """Observing, with a line that keeps what was said."""

    def __init__(self) -> None:
        self.observing = Observing()
        self.changes = 0
        self.observing.on_change = self._count
        self.seen: list[Seen] = []

    def _count(self) -> None:
        self.changes += 1

    def connect(self) -> None:
        self.observing.begun(Line(self._keep, lambda _: 0))

    def _keep(self, event: object) -> None:
        assert isinstance(event, Seen)
        self.seen.append(event)

    @property
    def last(self) -> DeploymentObservation:
        (one,) = self.seen[-1].deployments
        return one


def test_what_serves_is_told_with_its_port() -> None:
    """Declared and actual ones, health, and what it is made of."""
    machine = Machine()
    machine.connect()
    machine.observing.tell({KEY: standing(port=20007, step="Draining")})
    assert machine.last == DeploymentObservation(
        team="shop",
        name="web",
        health="healthy",
        ports=(ObservedPort(declared=8080, actual=20007),),
        digest="digest of one",
        step="Draining",
    )


@pytest.mark.parametrize(
    ("stands", "health", "ports"),
    [
        (Standing(step="Creating"), "starting", 0),
        (Standing(), "stopped", 0),
        (Standing(unknown=True), "unknown", 0),
        (Standing(unknown=True, step="Creating"), "unknown", 0),
        (standing(stopped=True), "stopped", 1),
        (standing(health=Health("unhealthy")), "unhealthy", 1),
        (standing(health=Health("unknown")), "unknown", 1),
    ],
)
def test_what_does_not_serve_is_told_as_well(stands: Standing, health: str, ports: int) -> None:
    """Whoever sends requests has to know that nobody answers, and why."""
    machine = Machine()
    machine.connect()
    machine.observing.tell({KEY: stands})
    assert (machine.last.health, len(machine.last.ports)) == (health, ports)


def test_only_news_is_told_and_everything_in_each_connection() -> None:
    """What was told in the connection before may have been lost with it."""
    machine = Machine()
    machine.connect()
    assert machine.seen == [], "nothing is known yet"
    for _ in range(3):
        machine.observing.tell({KEY: standing()})
    assert len(machine.seen) == 1
    machine.observing.ended()
    machine.observing.tell({KEY: standing(port=20001)})
    assert len(machine.seen) == 1
    machine.connect()
    assert len(machine.seen) == 2
    assert machine.last.ports[0].actual == 20001


def test_what_is_published_is_known_by_instance() -> None:
    """Of the observation that was published, not of the newest, and for another instance it says nothing."""
    machine = Machine()
    machine.connect()
    machine.observing.tell({KEY: standing("one")})
    machine.observing.tell({KEY: standing("two")})
    first, second = (one.token for one in machine.seen)
    assert machine.observing.acknowledged(KEY) is None
    machine.observing.heard(first)
    assert machine.observing.acknowledged(KEY) == "one"
    machine.observing.heard(second)
    assert machine.observing.acknowledged(KEY) == "two"
    assert machine.changes == 2
    machine.observing.tell({KEY: Standing()})
    machine.observing.heard(machine.seen[-1].token)
    assert machine.observing.acknowledged(KEY) is None


def test_ports_may_change_only_where_somebody_listens() -> None:
    """Whoever rolls out hears of it when that changes."""
    machine = Machine()
    assert not machine.observing.switching
    machine.observing.offered(True)
    machine.observing.offered(True)
    assert (machine.observing.switching, machine.changes) == (True, 1)
    machine.observing.offered(False)
    assert (machine.observing.switching, machine.changes) == (False, 2)


def test_what_is_told_always_fits_into_a_message() -> None:
    """Digests and steps are left out before deployments are."""

    def many(ports: int) -> list[DeploymentObservation]:
        observed = tuple(ObservedPort(declared=8000 + port, actual=20000 + port) for port in range(ports))
        return [
            DeploymentObservation(
                team="t" * 60, name=f"n{number}", health="healthy", ports=observed, digest="d" * 71, step="s" * 60
            )
            for number in range(900)
        ]

    small, large = fitting(many(1)), fitting(many(60))
    assert (len(small), small[0].digest) == (900, "")
    assert 0 < len(large) < 900
    for found in (small, large):
        assert len(Observation(number=1, deployments=found).model_dump_json(by_alias=True)) <= MAX_AGENT_MESSAGE
    used = fitting_usage([DeploymentUsage(team="t" * 60, name="n" * 60) for _ in range(3000)])
    assert len(Usage(deployments=used).model_dump_json(by_alias=True)) <= MAX_AGENT_MESSAGE
