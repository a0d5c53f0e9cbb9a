"""An engine that exists in thought: what instances become is said by the name of their image.

``…:good`` is healthy soon after its start, ``…:exits`` ends at once with 1, ``…:sick`` becomes unhealthy, ``…:slow``
never becomes anything, ``…:missing`` cannot be fetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from agent.deployments.actions import Action, Create, Keep, Remove, RemoveNetwork, RemoveVolumes, Start, Stop
from agent.deployments.driver import DriverError, Stats, Written
from agent.deployments.given import Given
from agent.deployments.health import Health, Probe
from agent.deployments.observed import Instance, Observed
from agent.deployments.planning import Situation, plan
from agent.deployments.rollout import Acknowledged, Decision, Memory
from agent.deployments.workload import Key, Workload
from schemas.deployment import DeploymentSpec

HEALTHY_AFTER: Final = 2.0
SICK_AFTER: Final = 20.0


def workload(name: str = "web", image: str = "web:good", *, team: str = "shop", **spec: Any) -> Workload:
    """Return a workload; ``spec`` as in YAML."""
    found = {"type": "container", "agents": ["vps-1"], "image": image, **spec}
    return Workload(Key(team, name), DeploymentSpec.model_validate(found))


class CutOff(Exception):
    """The agent was killed here."""


class ModelEngine:
    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.images: dict[str, str] = {}
        self.began: dict[str, float] = {}
        self.networks: set[Key] = set()
        self.volumes: set[Key] = set()
        self.now = 100.0
        self.done: list[Action] = []
        self.foreign: set[int] = set()
        """Ports that programs of others hold."""
        self._count = 0

    def observe(self) -> Observed:
        found = tuple(replace(one, health=self._health(one)) for one in self.instances.values())
        return Observed(found, frozenset(self.networks), frozenset(self.volumes))

    def observe_one(self, name: str) -> Instance:
        one = self.instances[name]
        return replace(one, health=self._health(one))

    def carry_out(self, action: Action) -> None:
        self.done.append(action)
        if isinstance(action, Create):
            self._create(action)
        elif isinstance(action, RemoveNetwork):
            assert not any(one.key == action.key for one in self.instances.values()), "a network in use"
            self.networks.discard(action.key)
        elif isinstance(action, RemoveVolumes):
            self.volumes.discard(action.key)
        elif isinstance(action, Remove):
            self.instances.pop(action.instance.id, None)
        else:
            self._change(action)

    def _create(self, action: Create) -> None:
        image = action.workload.spec.image or ""
        if image.endswith(":missing"):
            raise DriverError("PullFailed", f"image {image} cannot be pulled.", retryable=True)
        key = action.key
        taken = [one for one in self.instances.values() if one.key == key and one.slot == action.slot]
        assert not taken, "a slot was taken"
        self._count += 1
        name = f"{key}/{self._count}"
        self.networks.add(key)
        if action.workload.spec.volumes:
            self.volumes.add(key)
        self.images[name] = image
        ports = dict(action.ports)
        self.instances[name] = Instance(name, key, action.workload.digest, action.slot, "created", ports=ports)

    def _change(self, action: Start | Keep | Stop) -> None:
        one = self.instances[action.instance.id]
        if isinstance(action, Keep):
            one = replace(one, kept=True)
        elif isinstance(action, Stop):
            one = replace(one, state="exited", exit_code=143, killed=True)
        elif not one.up:
            held = {port for other in self.instances.values() if other.up for port in other.ports.values()}
            if (held | self.foreign) & set(one.ports.values()):
                raise DriverError("PortTaken", "the port is taken.", retryable=True)
            ends = self.images[one.id].endswith(":exits")
            self.began[one.id] = self.now
            one = replace(one, state="exited", exit_code=1, killed=False) if ends else replace(one, state="running")
        self.instances[one.id] = one

    def _health(self, one: Instance) -> Health:
        if one.state != "running":
            return Health("unknown")
        ran, image = self.now - self.began[one.id], self.images[one.id]
        if image.endswith(":sick") and ran >= SICK_AFTER:
            return Health("unhealthy", "HTTP 500 from /")
        return Health("healthy" if image.endswith(":good") and ran >= HEALTHY_AFTER else "starting")


class World:
    """An agent on a model engine. Fronts take over what is served with a delay of one round."""

    def __init__(self) -> None:
        self.engine = ModelEngine()
        self.desired: dict[Key, Workload] = {}
        self.memories: dict[Key, Memory] = {}
        self.released: frozenset[Key] = frozenset()
        self.acknowledged: dict[Key, Acknowledged] = {}
        self.decisions: dict[Key, Decision] = {}
        self.cut_after: int | None = None
        """Operations until the agent is killed."""
        self.looks: list[Callable[[], None]] = []
        """Called after every operation."""

    def want(self, *workloads: Workload) -> None:
        self.desired = {one.key: one for one in workloads}

    def plan(self) -> Mapping[Key, Decision]:
        engine = self.engine
        situation = Situation(
            self.desired, engine.observe(), self.memories, engine.now, self.acknowledged, released=self.released
        )
        self.decisions = plan(situation)
        return self.decisions

    def step(self) -> bool:
        """Plan once and carry it out; say whether there was anything to do."""
        before = dict(self.memories)
        anything = False
        for key, decision in self.plan().items():
            if decision.memory is not None and decision.memory != self.memories.get(key):
                self._operation()
                self.memories[key] = decision.memory
            for action in decision.actions:
                anything = True
                try:
                    self._operation()
                    self.engine.carry_out(action)
                except DriverError as error:
                    self._failed(key, action, error)
                    break
            if decision.memory is None:
                self.memories.pop(key, None)
        return anything or before != self.memories

    def run(self, rounds: int = 300) -> None:
        """Go on until nothing has changed for long enough that every deadline is over."""
        quiet = 0
        for _ in range(rounds):
            if self.step():
                quiet = 0
            else:
                quiet += 1
            self.acknowledge()
            self.engine.now += 1.0 if quiet < 5 else 40.0
            if quiet > 15:
                return

    def acknowledge(self) -> None:
        for key, decision in self.decisions.items():
            seen = self.acknowledged.get(key)
            if decision.serving is not None and (seen is None or seen.slot != decision.serving):
                self.acknowledged[key] = Acknowledged(decision.serving, self.engine.now)

    def restart(self) -> None:
        """The agent comes back: what it knew without a file is gone."""
        self.cut_after = None
        self.acknowledged = {}

    def _operation(self) -> None:
        for look in self.looks:
            look()
        if self.cut_after is not None:
            if self.cut_after == 0:
                raise CutOff
            self.cut_after -= 1

    def _failed(self, key: Key, action: Action, error: DriverError) -> None:
        memory, desired = self.memories[key], self.desired.get(key)
        if desired is not None and isinstance(action, Create | Start):
            self.memories[key] = memory.failed(
                desired.trial, error.reason, error.message, self.engine.now, retry=error.retryable
            )

    def there(self, key: Key) -> list[tuple[str, str, bool]]:
        """Return digest, state and keeping of what there is for a deployment."""
        return sorted((one.digest, one.state, one.kept) for one in self.engine.instances.values() if one.key == key)


class ModelDriver:
    """The model engine behind the seam of drivers. ``hang``: images whose fetching never ends."""

    def __init__(self, engine: ModelEngine, kind: str = "container") -> None:
        self.type = kind
        self.engine = engine
        self.away: DriverError | None = None
        self.hang: set[str] = set()
        self.lines = ""
        self.written: asyncio.Queue[str] = asyncio.Queue()
        """Lines for whoever follows."""
        self.executed: list[tuple[str, ...]] = []
        """Commands that have ended."""
        self.secrets: dict[str, Given] = {}
        """By deployment, what an instance was given."""

    async def observe(self) -> Observed:
        if self.away is not None:
            raise self.away
        found = self.engine.observe()
        ended = {one.id: replace(one, last_lines=self.lines) for one in found.instances if one.state == "exited"}
        return replace(found, instances=tuple(ended.get(one.id, one) for one in found.instances))

    async def carry_out(self, action: Action, given: Given) -> None:
        if isinstance(action, Create):
            if action.workload.spec.image in self.hang:
                await asyncio.Event().wait()
            self.secrets[action.key.name] = given
        self.engine.carry_out(action)

    async def run_inside(self, instance: Instance, command: tuple[str, ...], timeout_seconds: float) -> Probe:
        return Probe(self.engine.observe_one(instance.id).health.state == "healthy", "not yet")

    async def execute(self, instance: Instance, command: tuple[str, ...]) -> AsyncGenerator[Written | int, None]:
        """Say the command; ``sleep`` never ends, ``fail`` exits with 3."""
        try:
            yield Written(f"{' '.join(command)}\n")
            if command[0] == "sleep":
                await asyncio.Event().wait()
            if command[0] == "fail":
                yield Written("it failed\n", "stderr")
            yield 3 if command[0] == "fail" else 0
        finally:
            self.executed.append(command)

    async def logs(self, instance: Instance, *, tail: int, follow: bool = False) -> AsyncGenerator[str, None]:
        for line in self.lines.splitlines()[-tail:] if tail else ():
            yield line
        while follow:
            yield await self.written.get()

    async def stats(self, instance: Instance) -> Stats:
        return Stats(0.0, 0, 1)

    async def watch(self, changed: Callable[[], None]) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass
