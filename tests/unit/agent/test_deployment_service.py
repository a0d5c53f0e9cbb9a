"""The service for deployments: what it says, and what it leaves alone. The engine is one in thought."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.deployments.actions import Create, Stop
from agent.deployments.driver import DriverAbsent, DriverError
from agent.deployments.fronts import Serving, Standing
from agent.deployments.given import Given
from agent.deployments.lane import LaneSettings
from agent.deployments.observed import Observed
from agent.deployments.service import DeploymentService
from agent.deployments.standby import Standby
from agent.deployments.workload import Key, Workload
from schemas.session import Item, ItemResult
from tests.support.deployment_agent import item
from tests.support.model_engine import ModelDriver, ModelEngine, workload
from tests.support.waiting import eventually

KEY = Key("shop", "web")


def web(image: str = "web:good", **spec: Any) -> Item:
    # without a health check an instance of the model is good once it has run for long enough
    return item("web", **{"image": image, "rollout": {"deadline": "60s"}, **spec})


class Machine:
    """An agent whose clock goes on by a second with each look."""

    def __init__(self, data: Path, *, kinds: tuple[str, ...] = ("container",), **more: Any) -> None:
        self.engines = {kind: ModelEngine() for kind in kinds}
        self.drivers = {kind: ModelDriver(engine, kind) for kind, engine in self.engines.items()}
        self.engine, self.driver = self.engines[kinds[0]], self.drivers[kinds[0]]
        self.service = self.new_service(data, **more)
        self.changes = 0

    def new_service(self, data: Path, **more: Any) -> DeploymentService:
        settings = LaneSettings(settle=2.0, drain=1.0)
        found = DeploymentService(
            data,
            list(self.drivers.values()),
            settings=settings,
            monotonic=lambda: self.engine.now,
            random=lambda: 0.0,
            **more,
        )
        found.on_change = self._count
        return found

    def _count(self) -> None:
        self.changes += 1

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            await self.service.step()
            works = [work.task for lane in self.service._lanes.values() for work in lane._work.values()]
            if works:
                await asyncio.wait(works, timeout=0.01 if self.driver.hang else 10.0)
            for engine in self.engines.values():
                engine.now += 1.0

    async def settle(self, *items: Item, looks: int = 30) -> list[ItemResult]:
        await self.service.apply(items)
        await self.look(looks)
        return list(await self.service.apply(items))

    def images(self) -> list[str]:
        return [self.engine.images[one.id] for one in self.engine.instances.values() if one.up]


def run(scenario: Callable[[Machine], Any], data: Path, **more: Any) -> None:
    async def whole() -> None:
        await scenario(Machine(data, **more))

    asyncio.run(whole())


def test_it_says_how_it_goes(tmp_path: Path) -> None:
    """Progressing until it runs, then applied; the client is told that there is something new."""

    async def scenario(machine: Machine) -> None:
        (first,) = await machine.service.apply((web(),))
        assert (first.state, first.reason) == ("Progressing", "Waiting")
        (said,) = await machine.settle(web())
        assert (said.state, said.reason, machine.images()) == ("Applied", "Running", ["web:good"])
        assert machine.changes >= 2
        changes = machine.changes
        await machine.look(20)
        assert machine.changes == changes

    run(scenario, tmp_path)


def test_nothing_goes_before_a_document_was_read(tmp_path: Path) -> None:
    """An agent that has just started, and does not know yet what is wanted, removes nothing."""

    async def scenario(machine: Machine) -> None:
        await machine.settle(web())
        machine.service = machine.new_service(tmp_path)
        machine.engine.done.clear()
        await machine.look(5)
        assert machine.engine.done == []

    run(scenario, tmp_path)


def test_what_it_cannot_read_runs_on(tmp_path: Path) -> None:
    """A deployment with fields of a newer version is refused, and what runs of it stays, after a restart too."""

    async def scenario(machine: Machine) -> None:
        await machine.settle(web())
        machine.engine.done.clear()
        newer = web(somethingNew=True)
        (said,) = await machine.settle(newer)
        assert (said.state, said.reason) == ("Failed", "InvalidItem")
        machine.service = machine.new_service(tmp_path)
        await machine.settle(newer)
        assert machine.engine.done == []
        await machine.settle()
        assert machine.images() == []

    run(scenario, tmp_path)


def test_a_type_without_a_driver_is_said(tmp_path: Path) -> None:
    """An agent that runs containers alone says so of a process, for which nobody has to wait."""

    async def scenario(machine: Machine) -> None:
        process = item("web", type="process", command=["/bin/true"])
        (said,) = await machine.settle(process)
        assert (said.state, said.reason) == ("Applied", "Unsupported")
        assert said.message.startswith("This agent does not run deployments of type process.")

    run(scenario, tmp_path)


def test_what_cannot_run_here_needs_no_secrets(tmp_path: Path) -> None:
    """Nobody is asked for values of a deployment that no driver will be told of."""

    class NoValues:
        """A control plane that cannot open anything."""

        def __init__(self) -> None:
            self.on_change: Callable[[], None] = lambda: None
            self.wanted: list[Workload] = []

        def want(self, wanted: Iterable[Workload], former: Iterable[Workload] | None) -> None:
            self.wanted = list(wanted)

        def given(self, workload: Workload) -> Given:
            return Given({})

        def held_up(self, workload: Workload) -> Standby | None:
            return Standby("Failed", "SecretUnavailable", "It cannot be opened.")

    values = NoValues()
    wanted = web(secrets=[{"env": "TOKEN", "secret": "web", "key": "token"}])

    async def scenario(machine: Machine) -> None:
        machine.driver.away = DriverAbsent("There is no container engine at /run/docker.sock.")
        (said,) = await machine.settle(wanted)
        assert (said.state, said.reason, values.wanted) == ("Applied", "Unsupported", [])
        machine.driver.away = None
        (said,) = await machine.settle(wanted)
        assert (said.state, said.reason) == ("Failed", "SecretUnavailable")
        assert [one.key for one in values.wanted] == [KEY]

    run(scenario, tmp_path, values=values)


def test_an_engine_that_never_was_is_no_failure_and_one_that_went_is(tmp_path: Path) -> None:
    """What cannot be run here is kept until an engine comes; what has run waits for its engine, after a restart too."""

    async def scenario(machine: Machine) -> None:
        machine.driver.away = DriverAbsent("There is no container engine at /run/docker.sock.")
        (said,) = await machine.settle(web())
        assert (said.state, said.reason) == ("Applied", "Unsupported")
        assert said.message.startswith("There is no container engine at /run/docker.sock.")
        machine.driver.away = None
        (said,) = await machine.settle(web())
        assert (said.state, said.reason, machine.images()) == ("Applied", "Running", ["web:good"])
        machine.driver.away = DriverAbsent("There is no container engine at /run/docker.sock.")
        (said,) = await machine.settle(web())
        assert (said.state, said.reason) == ("Failed", "EngineUnavailable")
        machine.service = machine.new_service(tmp_path)
        task = asyncio.create_task(machine.service.run())
        await eventually(lambda: machine.service._loaded)
        task.cancel()
        (said,) = await machine.settle(web())
        assert (said.state, said.reason) == ("Failed", "EngineUnavailable")

    run(scenario, tmp_path)


def test_a_deployment_moves_to_another_driver(tmp_path: Path) -> None:
    """When its type changes it ends here and begins there, and its data stays."""

    async def scenario(machine: Machine) -> None:
        volumes = [{"name": "data", "path": "/data"}]
        await machine.settle(web(volumes=volumes, deletionPolicy="delete"))
        process = item("web", type="process", command=["/bin/true"], volumes=volumes, deletionPolicy="delete")
        await machine.settle(process)
        assert (machine.images(), machine.engine.volumes) == ([], {KEY})
        assert any(isinstance(action, Create) for action in machine.engines["process"].done)

    run(scenario, tmp_path, kinds=("container", "process"))


def _token(_: Workload) -> Given:
    return Given({"web/token": "canary-7"})


def test_secrets_reach_the_instance_and_nothing_else(tmp_path: Path) -> None:
    """A value is handed over; where the program printed it, people read stars; no file has it."""

    async def scenario(machine: Machine) -> None:
        machine.driver.lines = "cannot log in with canary-7"
        secrets = [{"env": "TOKEN", "secret": "web", "key": "token"}]
        (said,) = await machine.settle(web("web:exits", secrets=secrets), looks=8)
        assert machine.driver.secrets["web"].environment(workload("web", secrets=secrets).spec) == {"TOKEN": "canary-7"}
        assert said.message == "It exited with 1; last lines: cannot log in with ***."
        written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
        assert written
        assert "canary-7" not in "".join(written)

    run(scenario, tmp_path, secrets=_token)


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        ("key: | -----BEGIN KEY----- | MIIEvQIBADANBg | 0= | done", "key: | *** | *** | 0= | done"),
        ("EvQIBADANBg | done", "*** | done"),
    ],
    ids=["line by line", "begins in the middle"],
)
def test_values_of_several_lines_are_not_shown(tmp_path: Path, lines: str, shown: str) -> None:
    """What a program prints of a key is told line by line, and without its beginning; a short line may be anything."""

    async def scenario(machine: Machine) -> None:
        machine.driver.lines = lines
        secrets = [{"env": "TOKEN", "secret": "web", "key": "token"}]
        (said,) = await machine.settle(web("web:exits", secrets=secrets), looks=8)
        assert said.message == f"It exited with 1; last lines: {shown}."
        masked = machine.service.commanding.masked(KEY)
        assert [masked(line) for line in ("  MIIEvQIBADANBg\r", "0=", "x")] == ["  ***\r", "0=", "x"]

    value = "-----BEGIN KEY-----\r\n  MIIEvQIBADANBg\n0=\n"
    run(scenario, tmp_path, secrets=lambda _: Given({"web/token": value}))


def test_nothing_starts_without_its_secrets(tmp_path: Path) -> None:
    """Values that have not come yet are waited for, and named."""
    values: dict[str, str] = {}

    async def scenario(machine: Machine) -> None:
        wanted = web(secrets=[{"env": "TOKEN", "secret": "web", "key": "token"}])
        (said,) = await machine.settle(wanted, looks=3)
        assert (said.state, said.reason) == ("Failed", "SecretsMissing")
        assert said.message == "The control plane has not sent the values of web/token yet."
        assert machine.engine.instances == {}
        values["web/token"] = "canary"
        (said,) = await machine.settle(wanted)
        assert said.state == "Applied"

    run(scenario, tmp_path, secrets=lambda _: Given(values))


def test_a_driver_that_fails_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of the engine that nobody expected is said, and asked for again."""

    async def scenario(machine: Machine) -> None:
        def odd() -> None:
            raise KeyError("State")

        with monkeypatch.context() as patched:
            patched.setattr(machine.engine, "observe", odd)
            (said,) = await machine.settle(web(), looks=2)
            assert (said.reason, "KeyError" in said.message) == ("DriverFailed", True)
        (said,) = await machine.settle(web())
        assert said.state == "Applied"

    run(scenario, tmp_path)


def test_an_engine_that_is_away_is_said_and_waited_for(tmp_path: Path) -> None:
    """It is no fault of the deployment, and nothing is rolled back because of it."""

    async def scenario(machine: Machine) -> None:
        machine.driver.away = DriverError("EngineUnavailable", "The container engine does not answer.", engine=True)
        (said,) = await machine.settle(web(), looks=3)
        assert (said.state, said.reason) == ("Failed", "EngineUnavailable")
        machine.driver.away = None
        (said,) = await machine.settle(web())
        assert said.state == "Applied"

    run(scenario, tmp_path)


def test_a_newer_item_ends_what_hangs(tmp_path: Path) -> None:
    """While an image is fetched without end others roll out, and a newer item takes its place."""

    async def scenario(machine: Machine) -> None:
        machine.driver.hang.add("stuck:good")
        other = item("api", image="api:good")
        results = await machine.settle(web("stuck:good"), other)
        assert [said.state for said in results] == ["Progressing", "Applied"]
        (said, _) = await machine.settle(web("web:good"), other)
        assert said.state == "Applied"
        assert sorted(machine.images()) == ["api:good", "web:good"]

    run(scenario, tmp_path)


def test_what_cannot_be_remembered_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a full disk nothing is started or stopped, and it says so; it goes on when there is room."""

    async def scenario(machine: Machine) -> None:
        with monkeypatch.context() as patched:

            def full(*_: object) -> None:
                raise OSError(28, "No space left on device")

            patched.setattr("agent.deployments.memory.write_private", full)
            (said,) = await machine.settle(web(), looks=3)
            assert (said.reason, said.message) == (
                "NotPersisted",
                "The disk of the agent refused it: No space left on device.",
            )
            assert machine.engine.done == []
        (said,) = await machine.settle(web())
        assert said.state == "Applied"

    run(scenario, tmp_path)


VOLUMES: Mapping[str, Any] = {"volumes": [{"name": "data", "path": "/data"}]}


@pytest.mark.parametrize("restarted", [False, True])
def test_data_stays_where_retain_was_the_last_word_while_the_engine_was_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    """The policy is kept when the item is taken, for nobody can decide anything before the engine is back."""

    async def away() -> Observed:
        raise DriverError("EngineUnavailable", "it is away.", retryable=True)

    async def scenario(machine: Machine) -> None:
        await machine.settle(web(**VOLUMES, deletionPolicy="delete"))
        with monkeypatch.context() as patched:
            patched.setattr(machine.driver, "observe", away)
            await machine.settle(web(**VOLUMES, deletionPolicy="retain"), looks=2)
            if restarted:
                machine.service = machine.new_service(tmp_path)
            await machine.settle(looks=2)
        await machine.look(20)
        assert (machine.images(), machine.engine.volumes) == ([], {KEY})

    run(scenario, tmp_path)


def test_data_stays_where_retain_was_the_last_word_while_something_was_under_way(tmp_path: Path) -> None:
    """An image that is being fetched for minutes does not put the policy off."""

    async def scenario(machine: Machine) -> None:
        await machine.settle(web(**VOLUMES, deletionPolicy="delete"))
        machine.driver.hang.add("web2:good")
        for policy in ("delete", "retain"):
            await machine.service.apply((web("web2:good", **VOLUMES, deletionPolicy=policy),))
            await machine.look(2)
        machine.driver.hang.clear()
        await machine.settle()
        assert (machine.images(), machine.engine.volumes) == ([], {KEY})

    run(scenario, tmp_path)


def test_a_policy_that_the_disk_does_not_take_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told that the agent has it, and it is tried again with the next attempt."""

    async def scenario(machine: Machine) -> None:
        await machine.settle(web(**VOLUMES, deletionPolicy="delete"))
        retained = web(**VOLUMES, deletionPolicy="retain")
        with monkeypatch.context() as patched:

            def full(*_: object) -> None:
                raise OSError(28, "No space left on device")

            patched.setattr("agent.deployments.memory.write_private", full)
            (said,) = await machine.service.apply((retained,))
            assert (said.state, said.reason) == ("Failed", "NotPersisted")
        (said,) = await machine.service.apply((retained,))
        assert (said.state != "Failed", machine.service.memory_of(KEY).delete_data) == (True, False)

    run(scenario, tmp_path)


class Fronts:
    """Fronts that have what a test says that they have."""

    def __init__(self, *, switching: bool = True) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.switching = switching
        self.told: Mapping[Key, Standing] = {}
        self.times = 0
        self.have = ""

    def tell(self, standings: Mapping[Key, Standing]) -> None:
        self.told = standings
        self.times += 1

    def acknowledged(self, _key: Key) -> str | None:
        return self.have or None

    @property
    def serving(self) -> Serving:
        found = self.told[KEY].serving
        assert found is not None
        return found


PORTS: Any = {"ports": [{"container": 80, "host": 8080}]}
BLUE_GREEN: Any = {**PORTS, "rollout": {"strategy": "blue-green", "deadline": "60s"}}


def test_fronts_are_told_no_port_before_somebody_has_looked(tmp_path: Path) -> None:
    """A port that a former roll-out left would go back to the declared one: of what an engine runs that does not answer
    nobody can tell."""
    fronts = Fronts()

    async def scenario(machine: Machine) -> None:
        machine.driver.away = DriverError("EngineUnavailable", "It does not answer.", engine=True)
        await machine.service.apply((web(**PORTS),))
        assert fronts.times == 0
        await machine.settle(web(**PORTS))
        assert fronts.told == {KEY: Standing(unknown=True)}
        machine.driver.away = None
        await machine.settle(web(**PORTS))
        assert fronts.told[KEY].ports == ((8080, 8080),)
        machine.driver.away = DriverError("EngineUnavailable", "It does not answer.", engine=True)
        await machine.look()
        assert (fronts.told[KEY].health.state, fronts.told[KEY].ports) == ("unknown", ((8080, 8080),))

    run(scenario, tmp_path, fronts=fronts)


def test_an_engine_that_is_away_holds_nobody_else_back(tmp_path: Path) -> None:
    """What other drivers run is told at once; of what the engine ran, also what cannot be read now, nobody can tell."""
    fronts = Fronts()
    process = item("api", type="process", command=["/bin/true"], rollout={"deadline": "60s"})
    newer = item("worker", image="worker:good", somethingNew=True)

    async def scenario(machine: Machine) -> None:
        machine.engines["process"].images = machine.engine.images  # healthy once it has run for long enough
        machine.driver.away = DriverAbsent("There is no container engine at /run/docker.sock.")
        await machine.settle(web(**PORTS), process)
        assert set(fronts.told) == {Key("shop", "api")}, "what never ran here is as declared"
        machine.driver.away = None
        await machine.settle(web(**PORTS), process)
        assert fronts.told[KEY].ports == ((8080, 8080),)
        machine.driver.away = DriverAbsent("There is no container engine at /run/docker.sock.")
        machine.service, fronts.told = machine.new_service(tmp_path, fronts=fronts), {}
        task = asyncio.create_task(machine.service.run())
        await eventually(lambda: machine.service._loaded)
        task.cancel()
        await machine.settle(web(**PORTS), newer, process)
        api = fronts.told[Key("shop", "api")]
        assert (api.unknown, api.serving is not None, api.stopped) == (False, True, False)
        unknown = Standing(unknown=True)
        assert (fronts.told[KEY], fronts.told[Key("shop", "worker")]) == (unknown, unknown)
        machine.driver.away = None
        await machine.settle(web(**PORTS), process)
        assert (fronts.told[KEY].unknown, fronts.told[KEY].ports) == (False, ((8080, 8080),))

    run(scenario, tmp_path, fronts=fronts, kinds=("container", "process"))


def test_what_was_seen_last_is_no_end_once_the_engine_is_away(tmp_path: Path) -> None:
    """An instance that ended when its engine did may run again by now, and one that was not there too."""
    fronts = Fronts()

    async def scenario(machine: Machine) -> None:
        await machine.settle(web(**PORTS))
        (one,) = machine.engine.instances.values()
        machine.engine.carry_out(Stop(one))
        await machine.look()
        assert fronts.told[KEY] == Standing(step="Starting")
        machine.driver.away = DriverError("EngineUnavailable", "It does not answer.", engine=True)
        await machine.settle(web(**PORTS), item("api", image="api:good"))
        assert fronts.told[KEY] == Standing(step="Starting", unknown=True)
        assert fronts.told[Key("shop", "api")] == Standing(unknown=True)

    run(scenario, tmp_path, fronts=fronts)


def test_another_wish_takes_no_port_back(tmp_path: Path) -> None:
    """Between a new document and the next look what serves is still what served."""
    fronts = Fronts()

    async def scenario(machine: Machine) -> None:
        await machine.settle(web(**BLUE_GREEN))
        fronts.have = fronts.serving.instance
        await machine.settle(web("web:2", **BLUE_GREEN))
        (_, actual) = fronts.told[KEY].ports[0]
        assert 20000 <= actual <= 29999
        await machine.service.apply((web("web:3", **BLUE_GREEN),))
        assert fronts.told[KEY].ports == ((8080, actual),)

    run(scenario, tmp_path, fronts=fronts)


def test_what_is_lost_comes_back_where_fronts_look_for_it(tmp_path: Path) -> None:
    """At the port of the last roll-out, also after a restart of the agent; elsewhere where somebody has that port."""
    fronts = Fronts()
    newer = web("web:2", **BLUE_GREEN)

    async def scenario(machine: Machine) -> None:
        for one in (web(**BLUE_GREEN), newer, newer):
            await machine.settle(one)
            fronts.have = fronts.serving.instance
        (_, actual) = fronts.told[KEY].ports[0]
        assert (20000 <= actual <= 29999, machine.images()) == (True, ["web:2"])
        machine.engine.instances.clear()
        machine.service = machine.new_service(tmp_path, fronts=fronts)
        task = asyncio.create_task(machine.service.run())
        await eventually(lambda: machine.service._loaded)
        task.cancel()
        await machine.settle(newer)
        assert fronts.told[KEY].ports == ((8080, actual),)
        machine.engine.instances.clear()
        machine.engine.foreign = {actual}
        (said,) = await machine.settle(newer)
        assert (said.state, fronts.told[KEY].ports) == ("Applied", ((8080, 8080),))

    run(scenario, tmp_path, fronts=fronts)


def test_what_fronts_have_is_an_instance_and_no_slot(tmp_path: Path) -> None:
    """A third version in the slot of the first is not what they have had since the first."""
    fronts = Fronts()

    async def scenario(machine: Machine) -> None:
        await machine.settle(web(**BLUE_GREEN))
        fronts.have = fronts.serving.instance
        await machine.settle(web("web:2", **BLUE_GREEN))
        second = fronts.serving.instance
        assert sorted(machine.images()) == ["web:2", "web:good"], "the first is still asked"
        fronts.have = second
        await machine.settle(web("web:2", **BLUE_GREEN))
        assert machine.images() == ["web:2"]
        await machine.settle(web("web:3", **BLUE_GREEN))
        assert fronts.serving.instance != second
        assert sorted(machine.images()) == ["web:2", "web:3"], "the second is still asked"

    run(scenario, tmp_path, fronts=fronts)


def test_where_ports_cannot_be_told_they_do_not_change(tmp_path: Path) -> None:
    """Blue-green becomes recreate, and that is said."""
    fronts = Fronts(switching=False)

    async def scenario(machine: Machine) -> None:
        await machine.settle(web(**BLUE_GREEN))
        (said,) = await machine.settle(web("web:2", **BLUE_GREEN))
        assert (said.state, machine.images()) == ("Applied", ["web:2"])
        assert "recreate" in said.message
        assert fronts.told[KEY].ports == ((8080, 8080),)
        fronts.switching = True
        (said,) = await machine.settle(web("web:3", **BLUE_GREEN))
        assert fronts.told[KEY].ports != ((8080, 8080),)
        assert said.reason == "Switching"

    run(scenario, tmp_path, fronts=fronts)
