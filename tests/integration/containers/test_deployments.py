"""Deployments of type container on a real Docker Engine: they run, change, fail, and are kept apart."""

from __future__ import annotations

import asyncio
import json
import select
import socket
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import pytest

from agent.deployments.docker_engine import DockerEngine
from agent.deployments.firewall import NoFirewall
from agent.deployments.fronts import Serving, Standing
from agent.deployments.given import Given
from agent.deployments.workload import Key
from tests.support.container_machine import (
    CHECK,
    SECONDS,
    containers,
    images_and_states,
    network_of,
    page,
    reached_from,
    running,
    say_hello,
    settled,
    until,
    web,
)
from tests.support.deployment_agent import AGENT
from tests.support.networked_engine import NetworkedEngine
from tests.support.waiting import eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

KEY: Final = Key("shop", "web")


def test_it_runs_and_is_left_alone(machine: NetworkedEngine, tmp_path: Path) -> None:
    """A deployment answers at its port with its environment; asked again, and by a new agent, nothing is done."""

    async def scenario() -> None:
        wanted = web(env={"GREETING": "hello"}, secrets=[{"env": "TOKEN", "secret": "web", "key": "token"}])
        async with running(machine, tmp_path, secrets=lambda _: Given({"web/token": "canary"})) as found:
            results = await settled(found, wanted)
            assert (results["web"].state, results["web"].reason) == ("Applied", "Running")
            assert await page(8081) == "version 1"
            (before,) = containers(machine)
            assert {"GREETING=hello", "TOKEN=canary"} <= set(before["Config"]["Env"])
        async with running(machine, tmp_path, secrets=lambda _: Given({"web/token": "canary"})) as again:
            assert (await settled(again, wanted))["web"].state == "Applied"
            (after,) = containers(machine)
            assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
            await settled(again)
            await eventually(lambda: containers(machine) == [], SECONDS)
            await eventually(lambda: "cloudlunacy" not in machine.command("network", "ls").stdout, SECONDS)
        assert "canary" not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))

    machine.inside(scenario)


def test_a_new_image_takes_the_place_of_the_old(machine: NetworkedEngine, tmp_path: Path) -> None:
    """With recreate the new version answers at the same port, and one container is left."""

    async def scenario() -> None:
        async with running(machine, tmp_path) as found:
            await settled(found, web("web:1"))
            assert (await settled(found, web("web:2")))["web"].state == "Applied"
            assert await page(8081) == "version 2"
            await eventually(lambda: images_and_states(machine) == [("web:2", "running")], SECONDS)

    machine.inside(scenario)


class SlowFronts:
    """Fronts that take over what is served when they are told to, and a client that asks them all the time."""

    switching = True

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.wanted: Serving | None = None
        self.used: Serving | None = None
        self.pages: list[str] = []

    def tell(self, standings: Mapping[Key, Standing]) -> None:
        self.wanted = standings[KEY].serving

    def acknowledged(self, key: Key) -> str | None:
        assert key == KEY
        return None if self.used is None else self.used.instance

    async def ask(self) -> None:
        while True:
            if self.used is not None:
                self.pages.append(await page(self.used.ports[8080]))
            await asyncio.sleep(0.01)


def test_blue_green_fails_no_request(machine: NetworkedEngine, tmp_path: Path) -> None:
    """The old version answers until the fronts ask the new one, at its own port; then it goes, and nobody notices."""

    async def scenario() -> None:
        fronts = SlowFronts()
        async with running(machine, tmp_path, fronts=fronts) as found:
            await settled(found, web("web:1", strategy="blue-green"))
            assert fronts.wanted is not None
            assert fronts.wanted.ports == {8080: 8081}
            fronts.used = fronts.wanted
            client = asyncio.create_task(fronts.ask())
            newer = web("web:2", strategy="blue-green")
            await eventually(lambda: "version 1" in fronts.pages)
            await found.apply((newer,))
            await eventually(lambda: fronts.wanted is not None and fronts.wanted.slot == "b", SECONDS)
            (said,) = await found.apply((newer,))
            assert (said.state, said.reason) == ("Progressing", "Switching")
            assert len(containers(machine)) == 2
            fronts.used = fronts.wanted
            assert 20000 <= fronts.used.ports[8080] <= 29999
            assert (await settled(found, newer))["web"].state == "Applied"
            await eventually(lambda: images_and_states(machine) == [("web:2", "running")], SECONDS)
            assert not client.done(), "a request failed"
            assert set(fronts.pages) == {"version 1", "version 2"}
            client.cancel()

    machine.inside(scenario)


IDLE: Final = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"]
BAD: Final[list[tuple[dict[str, Any], str, str]]] = [
    ({"image": "127.0.0.1:9/web:9"}, "PullFailed", "image 127.0.0.1:9/web:9 cannot be pulled: "),
    ({"command": ["sh", "-c", "echo no database; exit 3"]}, "Exited", "It exited with 3 after "),
    ({"command": ["/bin/nothing"]}, "CannotStart", "Its program is not in the image: "),
    (
        {"command": IDLE, "healthCheck": {**CHECK, "startPeriod": "1s", "failures": 2}},
        "Unhealthy",
        "It is not healthy: Connection refused from / at port 8080.",
    ),
    (
        {"command": IDLE, "healthCheck": {**CHECK, "startPeriod": "1m"}, "deadline": "1s"},
        "DeadlineExceeded",
        "It did not become healthy within 1s: Connection refused from / at port 8080.",
    ),
]


def test_what_is_bad_goes_back_and_says_why(machine: NetworkedEngine, tmp_path: Path) -> None:
    """However a new version fails, the last good one runs again, and a sentence says what was wrong."""

    async def scenario() -> None:
        async with running(machine, tmp_path) as found:
            await settled(found, web())
            for change, reason, says in BAD:
                rollout = {"strategy": "recreate", "deadline": change.get("deadline", "10s")}
                spec = {name: value for name, value in change.items() if name != "deadline"}
                bad = web(**{"rollout": rollout, **spec})
                said = (await settled(found, bad))["web"]
                assert (said.state, said.reason) == ("Failed", reason)
                assert said.message.startswith(says)
                if reason == "Exited":
                    assert "last lines: no database." in said.message
                await eventually(lambda: images_and_states(machine) == [("web:1", "running")], SECONDS)
                assert await page(8081) == "version 1"
                assert (await found.apply((bad,)))[0].message.endswith("The last good version runs on.")

    machine.inside(scenario)


def test_a_newer_item_ends_a_pull_that_hangs(machine: NetworkedEngine, tmp_path: Path) -> None:
    """With a registry that never answers the old version serves on, and a newer commit is rolled out at once."""

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 5000)) as registry:  # takes connections, and nobody reads them
            async with running(machine, tmp_path) as found:
                await settled(found, web("web:1"))
                stuck = web(f"127.0.0.1:{registry.getsockname()[1]}/web:2")

                async def fetching() -> bool:
                    return [said.reason for said in await found.apply((stuck,))] == ["Creating"]

                await until(fetching, "a pull")
                assert await asyncio.to_thread(select.select, [registry], [], [], SECONDS) == ([registry], [], [])
                assert await page(8081) == "version 1"
                assert (await settled(found, web("web:2")))["web"].state == "Applied"
                assert await page(8081) == "version 2"

    machine.inside(scenario)


INSIDE: Final = """
echo uid=$(id -u)
cat /proc/1/status
touch /new && echo wrote-root
touch /tmp/new && echo wrote-tmp
touch /data/new && echo wrote-data
ls /
"""


def test_deployments_are_kept_apart(machine: NetworkedEngine, tmp_path: Path) -> None:
    """From inside one reaches neither the other nor the machine and its files, and may do only what it needs."""

    async def scenario() -> None:
        limits = {"memory": "32Mi", "cpus": 0.5, "pids": 60}
        volumes = [{"name": "data", "path": "/data"}]
        one, other = web(name="one", resources=limits, volumes=volumes), web("web:2", name="other", host=8082)

        host = await asyncio.start_server(say_hello, "0.0.0.0", 9999)
        async with host, running(machine, tmp_path) as found:
            results = await settled(found, one, other)
            assert {said.state for said in results.values()} == {"Applied"}
            by_name = {shown["Config"]["Hostname"]: shown for shown in containers(machine)}
            address, gateway = (network_of(by_name["other"])[name] for name in ("IPAddress", "Gateway"))
            own_gateway = network_of(by_name["one"])["Gateway"]
            assert await page(9999, gateway) == "hello"

            targets = [f"{host} {port}" for host in (address, gateway, own_gateway) for port in (8080, 8082, 9999)]
            targets += ["127.0.0.1 8080", "169.254.169.254 80"]
            assert await reached_from(machine, by_name["one"], targets) == ["127.0.0.1 8080"]
            assert await page(8081) == "version 1"
            _may_do_little(machine, by_name["one"])

    machine.inside(scenario)


def _may_do_little(machine: NetworkedEngine, shown: dict[str, Any]) -> None:
    said = machine.command("exec", shown["Id"], "sh", "-c", INSIDE, check=False).stdout
    assert "CapEff:\t0000000000000000" in said
    assert "CapBnd:\t0000000000000000" in said
    assert "NoNewPrivs:\t1" in said
    assert ("wrote-root" in said, "wrote-tmp" in said, "wrote-data" in said) == (False, True, True)
    assert set(said.split("wrote-data")[1].split()) <= {"bin", "data", "dev", "etc", "proc", "sys", "tmp", "www"}
    assert shown["HostConfig"]["Binds"] in (None, [])
    assert all(mount["Type"] in ("volume", "tmpfs") for mount in shown["Mounts"])
    bomb = "i=0; while [ $i -lt 80 ]; do sleep 5 & i=$((i+1)); done; wait"
    crowded = machine.command("exec", shown["Id"], "sh", "-c", bomb, check=False)
    assert "fork" in crowded.stderr
    hungry = "dd if=/dev/zero of=/dev/null bs=64M count=1"
    assert machine.command("exec", shown["Id"], "sh", "-c", hungry, check=False).returncode != 0


def test_an_instance_is_asked_and_read(machine: NetworkedEngine, tmp_path: Path) -> None:
    """A command is run inside to see how it is; its log comes line by line, as it is written; its use is known."""

    async def scenario() -> None:
        talk = "i=0; while :; do i=$((i+1)); echo line $i; echo again; sleep 0.2; done"
        check = {"command": {"command": ["cat", "/tmp/ready"]}, "interval": "200ms", "startPeriod": "1m"}
        spec: dict[str, Any] = {"command": ["sh", "-c", f"touch /tmp/ready; {talk}"], "ports": [], "healthCheck": check}
        driver = DockerEngine(machine.socket, AGENT, firewall=NoFirewall())
        async with running(machine, tmp_path) as found:
            assert (await settled(found, web(**spec)))["web"].state == "Applied"
            (instance,) = (await driver.observe()).instances
            failed = await driver.run_inside(instance, ("cat", "/nothing"), 5.0)
            assert (failed.good, failed.detail) == (False, "cat exited with 1")
            slow = await driver.run_inside(instance, ("sleep", "5"), 0.3)
            assert (slow.good, slow.detail) == (False, "sleep did not end within 0.3 s")
            assert [line async for line in driver.logs(instance, tail=1)] == ["again"]
            heard = []
            async with asyncio.timeout(SECONDS), aclosing(driver.logs(instance, tail=2, follow=True)) as lines:
                async for line in lines:
                    heard.append(line)
                    if len(heard) == 6:
                        break
            assert heard[1::2] == ["again"] * 3
            used = await driver.stats(instance)
            assert used.memory_bytes > 0
            assert used.pids >= 1
        await driver.close()

    machine.inside(scenario)


def test_data_outlives_the_container(machine: NetworkedEngine, tmp_path: Path) -> None:
    """A volume is there after a change and after the deployment was gone; it goes when policy and document say so."""

    async def scenario() -> None:
        volumes = [{"name": "data", "path": "/data"}]
        async with running(machine, tmp_path) as found:
            await settled(found, web(volumes=volumes))
            machine.command("exec", containers(machine)[0]["Id"], "touch", "/data/kept")
            await settled(found, web("web:2", volumes=volumes))
            await settled(found)
            await eventually(lambda: containers(machine) == [], SECONDS)
            await settled(found, web("web:1", volumes=volumes, deletionPolicy="delete"))
            assert machine.command("exec", containers(machine)[0]["Id"], "ls", "/data").stdout == "kept\n"
            found.remembered.released = frozenset({"shop/web"})
            await settled(found)
            await eventually(lambda: machine.command("volume", "ls", "--quiet").stdout == "", SECONDS)

    machine.inside(scenario)


def test_foreign_containers_are_not_touched(machine: NetworkedEngine, tmp_path: Path) -> None:
    """What is not ours stays as it is: by another's label, by none, and with a name like ours."""
    labels = {"agent": "vps-2", "team": "shop", "deployment": "web", "slot": "a", "digest": "sha256:0"}
    options = [word for name, value in labels.items() for word in ("--label", f"io.cloudlunacy.{name}={value}")]
    names = ("their-web", "cloudlunacy_vps-1_shop_old_a", "other-agents")
    for name in names:
        more = options if name == "other-agents" else []
        machine.start("web:1", "sleep", "1000", options=["--name", name, "--network", "none", *more])

    def foreign() -> list[str]:
        return [json.dumps(machine.inspect(name)["State"], sort_keys=True) for name in names]

    async def scenario() -> None:
        before = foreign()
        async with running(machine, tmp_path) as found:
            await settled(found, web())
            await settled(found, web("web:2"))
            await settled(found)
            await eventually(lambda: len(containers(machine)) == len(names), SECONDS)
        assert foreign() == before

    machine.inside(scenario)
