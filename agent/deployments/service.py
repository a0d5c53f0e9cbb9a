"""Makes the deployments of the document run (docs/deployments.md), and says how each of them stands.

:meth:`DeploymentService.apply` takes what is wanted and returns; :meth:`DeploymentService.run` does the work, in
one lane for each driver (:mod:`agent.deployments.lane`), and needs no control plane to keep up what was wanted last.
When something stands otherwise than was said, ``on_change`` is called, so that ``apply`` is called again.
"""

from __future__ import annotations

import asyncio
import random as randomness
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from agent.deployments.commanding import Commanding
from agent.deployments.driver import Driver, DriverAbsent
from agent.deployments.fronts import Fronts, NoFronts, Serving, Standing
from agent.deployments.given import NOTHING, Given
from agent.deployments.health import UNKNOWN
from agent.deployments.lane import Lane, LaneSettings
from agent.deployments.memory import MemoryFiles, Remembered, boot_id
from agent.deployments.mongodb import TYPE as MONGODB
from agent.deployments.mongodb import Databases
from agent.deployments.observed import Instance
from agent.deployments.planning import NO_MEMORY
from agent.deployments.restarts import Restarts
from agent.deployments.rollout import Acknowledged, Memory
from agent.deployments.standby import Standby
from agent.deployments.usage import Running
from agent.deployments.workload import KIND, InvalidItem, Key, Workload, workload_of
from schemas.session import SECRETS_VERSION, UNSUPPORTED, Item, ItemResult
from schemas.text import visible

DEFAULTS: Final = LaneSettings()
_LONGEST: Final = 1800
_NO_SWITCHING: Final = "The control plane does not follow ports, so it is rolled out as recreate."
_REFUSED: Final = "The disk of the agent refused its deletion policy."
_GATHER_SECONDS: Final = 0.05


class Values(Protocol):
    """The values of secrets: :class:`agent.deployments.secrets.Secrets`."""

    on_change: Callable[[], None]
    """Is called when :meth:`held_up` may say something else."""

    def want(self, wanted: Iterable[Workload], former: Iterable[Workload] | None) -> None:
        """These are to run, and those may have to run again; None: it is not known yet which."""

    def given(self, workload: Workload) -> Given:
        """Return the values of a workload, as far as they are here."""

    def held_up(self, workload: Workload) -> Standby | None:
        """Say why a workload cannot be made yet."""


class DeploymentService:
    """A :class:`agent.services.Service`. ``secrets`` gives the values that a workload takes from secrets."""

    kinds = frozenset({KIND})

    def __init__(
        self,
        data: Path,
        drivers: Sequence[Driver],
        *,
        fronts: Fronts | None = None,
        secrets: Callable[[Workload], Given] = lambda _workload: NOTHING,
        values: Values | None = None,
        databases: Databases | None = None,
        settings: LaneSettings = DEFAULTS,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.restarts = Restarts(data)
        self.commanding = Commanding(self)
        """What commands may do here."""
        self._files = MemoryFiles(data, boot_id())
        self._fronts = fronts or NoFronts()
        self._fronts.on_change = self.look_again
        self._values = values
        if values is not None:
            secrets, values.on_change = values.given, self.look_again
        self._monotonic = monotonic
        self._wake = asyncio.Event()
        self._databases = databases
        if databases is not None:
            databases.on_change = self._wake.set
        self._memories: dict[Key, Memory] = {}
        self.remembered = Remembered(self._memories, self._files)
        self._lanes = {
            driver.type: Lane(
                driver,
                self._memories,
                self.remembered,
                settings=settings,
                monotonic=monotonic,
                random=random,
                secrets=secrets,
                wake=self._wake.set,
            )
            for driver in drivers
        }
        self._items: dict[str, Workload | InvalidItem] = {}
        self._lowered: dict[Key, Workload | Standby] = {}
        """What stands for each in a lane: databases are containers or processes there."""
        self._switching = True
        self._known = False
        """A document was applied; until then nothing may go because it is not wanted."""
        self._loaded = False
        """What an earlier process kept is known."""
        self._loading = asyncio.Lock()
        self._stood: dict[Key, Standing] = {}
        self._served: dict[Key, Serving] = {}
        self._said: tuple[ItemResult, ...] = ()

    # --- as a service -------------------------------------------------------------------------------------------

    async def apply(self, items: tuple[Item, ...]) -> Sequence[ItemResult]:
        """Take what is wanted, and say how it stands. What data may go is kept on the disk by then."""
        await self._load()
        self._items = {item.id: _read(item) for item in items}
        wanted = self._assign()
        self.restarts.keep(wanted)
        await self.remembered.take_policies(one for one in self._items.values() if isinstance(one, Workload))
        self._known = True
        self._wake.set()
        self._tell_fronts()
        self._said = self._results()
        return self._said

    def _assign(self) -> set[Key]:
        """Give each lane what it shall run; return all that is wanted."""
        known = [one for one in self._items.values() if isinstance(one, Workload)]
        if self._values is not None:
            goods = [memory.good for memory in self._memories.values() if memory.good is not None]
            here = [one for one in known if self._may_run(one)]
            self._values.want(here, goods if self._loaded else None)
        self._switching = self._fronts.switching
        self._lowered = {one.key: self._lower(one) for one in known}
        wanted = {key: self.restarts.on(one) for key, one in self._lowered.items() if isinstance(one, Workload)}
        kept = {_key_of_id(name) for name, one in self._items.items() if isinstance(one, InvalidItem)}
        kept |= self._lowered.keys() - wanted.keys()
        for kind, lane in self._lanes.items():
            before = lane.desired
            # what cannot be read is not gone: what runs of it runs on as it was wanted last
            lane.desired = {key: one for key, one in wanted.items() if one.spec.type == kind} | {
                key: one for key, one in before.items() if key in kept
            }
            lane.elsewhere = frozenset(wanted.keys() - lane.desired.keys())
            lane.left_alone = frozenset(kept - lane.desired.keys())
            lane.switching = self._switching
            for key in lane.desired.keys() | before.keys():
                if lane.desired.get(key) != before.get(key):
                    lane.forget_trouble(key)
                    lane.decisions.pop(key, None)
        if self._databases is not None:
            self._databases.keep({one.key for one in known if one.spec.type == MONGODB} | (kept - self._lowered.keys()))
        return wanted.keys() | kept

    def _lower(self, workload: Workload) -> Workload | Standby:
        held_up = self._values.held_up(workload) if self._values is not None and self._may_run(workload) else None
        if held_up is not None:
            return held_up
        if workload.blue_green and not self._switching:
            rollout = workload.spec.rollout.model_copy(update={"strategy": "recreate"})
            workload = replace(workload, spec=workload.spec.model_copy(update={"rollout": rollout}))
        if self._databases is None or workload.spec.type != MONGODB:
            return workload
        return self._databases.lowered(workload)

    def look_again(self) -> None:
        """Look soon: something that nobody sees in what runs is otherwise than before."""
        self._wake.set()

    def observed(self) -> Mapping[Key, Serving]:
        """Return what serves now, for whoever tells the control plane."""
        return dict(self._served)

    def running(self) -> list[Running]:
        """Return what serves and runs now, for whoever asks what it uses."""
        return [
            Running(lane.driver, one)
            for lane in self._lanes.values()
            for one in (() if lane.observed is None else lane.observed.instances)
            if one.state == "running" and one.key in self._served and self._served[one.key].instance == one.id
        ]

    # --- what commands need -------------------------------------------------------------------------------------

    def lane_of(self, key: Key) -> Lane | None:
        """Return the lane of a deployment that is wanted."""
        return next((lane for lane in self._lanes.values() if key in lane.desired), None)

    def memory_of(self, key: Key) -> Memory:
        return self._memories.get(key, NO_MEMORY)

    def want_again(self, key: Key) -> None:
        """Look at once: what is wanted of a deployment is another instance by now."""
        lane = self.lane_of(key)
        if lane is not None:
            lane.desired[key] = self.restarts.on(replace(lane.desired[key], restart=""))
            lane.forget_trouble(key)
            lane.decisions.pop(key, None)
            self._wake.set()

    # --- the task -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep everything as it is wanted, for ever."""
        await self._load()
        for lane in self._lanes.values():
            lane.desired = {key: self.restarts.on(one) for key, one in lane.desired.items()}
        try:
            async with asyncio.TaskGroup() as tasks:
                for kind, lane in self._lanes.items():
                    tasks.create_task(lane.driver.watch(self._wake.set), name=f"watch-{kind}")
                if self._databases is not None:
                    tasks.create_task(self._databases.run(), name="databases")
                while True:
                    self._wake.clear()
                    pause = await self.step()
                    try:
                        async with asyncio.timeout(pause):
                            await self._wake.wait()
                    except TimeoutError:
                        continue
                    await asyncio.sleep(_GATHER_SECONDS)  # what happens together is looked at together
        finally:
            for lane in self._lanes.values():
                await lane.close()

    async def _load(self) -> None:
        async with self._loading:
            if not self._loaded:
                self._memories.update(await asyncio.to_thread(self._files.load, self._monotonic()))
                await asyncio.to_thread(self.restarts.load)
                self._loaded = True

    async def step(self) -> float:
        """Look once at everything; return the seconds until the next look."""
        if not self._known:
            return 3600.0
        if self._switching != self._fronts.switching or (self._databases, self._values) != (None, None):
            self._assign()  # a certificate may have come, or values of secrets
        again = [await lane.step() for lane in self._lanes.values()]
        await self.commanding.look()
        if self._tell_fronts():
            self._wake.set()
        if (results := self._results()) != self._said:
            self._said = results
            self.on_change()
        return max(0.0, min(again, default=self._monotonic() + 3600.0) - self._monotonic())

    def _tell_fronts(self) -> bool:
        """Say how everything stands, and note what fronts know of it; True when something new is known."""
        standings, news = self._standings(), False
        self._served = {key: one.serving for key, one in standings.items() if one.serving is not None}
        if all(lane.observed is not None or lane.unavailable is not None for lane in self._lanes.values()):
            self._fronts.tell(standings)
        for lane in self._lanes.values():
            instances = () if lane.observed is None else lane.observed.instances
            slots = {(one.key, one.id): one.slot for one in instances}
            for key in lane.decisions:
                slot = slots.get((key, self._fronts.acknowledged(key) or ""))
                before = lane.acknowledged.get(key)
                if slot is None:
                    # what they have is gone: another instance in its slot is not what they have
                    lane.acknowledged.pop(key, None)
                elif before is None or before.slot != slot:
                    lane.acknowledged[key] = Acknowledged(slot, self._monotonic())
                    news = True
        return news

    def _standings(self) -> dict[Key, Standing]:
        found = {}
        for lane in self._lanes.values():
            instances = () if lane.observed is None else lane.observed.instances
            for key in lane.desired:
                decision = lane.decisions.get(key)
                if decision is not None:
                    one = next((one for one in instances if one.key == key and one.slot == decision.serving), None)
                    step = decision.reason if decision.state == "Progressing" else ""
                    found[key] = _standing(lane, lane.desired[key], step, one)
                elif key in self._stood:  # something else is wanted, and nobody has looked since
                    found[key] = self._stood[key]
                elif self._is_away(lane):
                    found[key] = Standing(unknown=True)
            for key in lane.left_alone:
                good = self.memory_of(key).good
                runs = [one for one in instances if good is not None and one.key == key and one.up]
                one = next((one for one in runs if good is not None and one.digest == good.digest), None)
                if good is not None and one is not None:
                    found[key] = _standing(lane, good, "", one)
        for lane in self._lanes.values():
            if lane.observed is None and self._is_away(lane):  # it may be there that they run
                found = dict.fromkeys(lane.left_alone, Standing(unknown=True)) | found
        self._stood = found
        return found

    # --- what is said -------------------------------------------------------------------------------------------

    def _results(self) -> tuple[ItemResult, ...]:
        return tuple(self._result(name, one) for name, one in self._items.items())

    def _result(self, name: str, one: Workload | InvalidItem) -> ItemResult:
        if isinstance(one, InvalidItem):
            return ItemResult(id=name, state="Failed", reason="InvalidItem", message=str(one))
        if one.key in self.remembered.refused:
            return ItemResult(id=name, state="Failed", reason="NotPersisted", message=_REFUSED)
        lowered = self._lowered[one.key]
        if isinstance(lowered, Standby):
            if lowered.reason == UNSUPPORTED:
                return _unsupported(name, lowered.message)
            return ItemResult(id=name, state=lowered.state, reason=lowered.reason, message=lowered.message)
        said = self._rolled_out(name, lowered)
        if one.blue_green and not self._switching and said.state != "Failed":
            said = said.model_copy(update={"message": f"{said.message} {_NO_SWITCHING}".strip()})
        return said if self._databases is None else self._databases.result(one.key, said)

    def _rolled_out(self, name: str, one: Workload) -> ItemResult:
        lane = self._lanes.get(one.spec.type)
        if lane is None:
            return _unsupported(name, f"This agent does not run deployments of type {one.spec.type}.")
        if lane.unavailable is not None:
            error = lane.unavailable
            if self._is_absent(lane):
                return _unsupported(name, error.message)
            return ItemResult(id=name, state="Failed", reason=error.reason, message=_shown(error.message))
        trouble, decision = lane.troubles.get(one.key), lane.decisions.get(one.key)
        if trouble is not None:
            return ItemResult(id=name, state="Failed", reason=trouble.reason, message=_shown(trouble.message))
        if decision is None:
            return ItemResult(id=name, state="Progressing", reason="Waiting", message="Nobody has looked yet.")
        message = _shown(decision.message)
        return ItemResult(id=name, state=decision.state, reason=decision.reason, message=message)

    def _may_run(self, workload: Workload) -> bool:
        """Say whether something here could run it; a database is run by any driver."""
        kind = workload.spec.type
        lanes = self._lanes.values() if kind == MONGODB else filter(None, [self._lanes.get(kind)])
        return any(not self._is_absent(lane) for lane in lanes)

    def _is_away(self, lane: Lane) -> bool:
        return lane.unavailable is not None and not self._is_absent(lane)

    def _is_absent(self, lane: Lane) -> bool:
        """Say that there is nothing for the driver and never was; what was there once is away, and comes back."""
        has_run = any(memory.type == lane.driver.type for memory in self._memories.values())
        return isinstance(lane.unavailable, DriverAbsent) and not has_run


def _standing(lane: Lane, workload: Workload, step: str, instance: Instance | None) -> Standing:
    away = lane.unavailable is not None
    if instance is None:
        return Standing(step=step, unknown=away)
    health = UNKNOWN if away or not instance.up else instance.health
    ports = [
        (mapping.host, instance.ports[mapping.container])
        for mapping in workload.spec.ports
        if mapping.container in instance.ports
    ]
    return Standing(
        Serving(instance.slot, instance.ports, health, instance.id),
        tuple(ports),
        instance.digest,
        step,
        stopped=not instance.up and not away,
    )


def _read(item: Item) -> Workload | InvalidItem:
    spec = dict(item.spec)
    version = spec.pop(SECRETS_VERSION, "")
    try:
        return workload_of(item.model_copy(update={"spec": spec}), version if isinstance(version, str) else "")
    except InvalidItem as error:
        return error


def _unsupported(name: str, why: str) -> ItemResult:
    """Nothing can become of it here, so nobody waits for it (docs/adr/0044)."""
    text = f"{why} The deployment is kept, and nothing of it runs here."
    return ItemResult(id=name, state="Applied", reason=UNSUPPORTED, message=text)


def _key_of_id(name: str) -> Key:
    _, _, rest = name.partition("/")
    team, _, deployment = rest.partition("/")
    return Key(team, deployment)


def _shown(message: str) -> str:
    return visible(message)[:_LONGEST]
