"""The same driver on Podman's socket: what differs from a Docker Engine is done by the agent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from agent.deployments.given import Given
from tests.support.container_machine import (
    containers,
    images_and_states,
    network_of,
    page,
    reached_from,
    running,
    say_hello,
    settled,
    web,
)
from tests.support.networked_engine import NetworkedEngine, NetworkedPodman, networked_engine
from tests.support.waiting import eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

ONE: Final = "localhost/web:1"
TWO: Final = "localhost/web:2"


@pytest.fixture(scope="module")
def podman() -> Iterator[NetworkedEngine]:
    with networked_engine(NetworkedPodman) as engine:
        for version in ("1", "2"):
            engine.make_image(f"localhost/web:{version}", f"version {version}")
        yield engine


def test_it_runs_changes_and_goes_back(podman: NetworkedEngine, tmp_path: Path) -> None:
    """A version, the next one, a bad one, somebody who stops it: as with Docker, and the agent starts it again."""

    async def scenario() -> None:
        async with running(podman, tmp_path) as found:
            assert (await settled(found, web(ONE)))["web"].state == "Applied"
            assert await page(8081) == "version 1"
            assert (await settled(found, web(TWO, strategy="blue-green")))["web"].state == "Applied"
            await eventually(lambda: images_and_states(podman) == [(TWO, "running")], 20)
            said = (await settled(found, web(ONE, command=["sh", "-c", "echo bad; exit 3"])))["web"]
            assert (said.state, said.reason) == ("Failed", "Exited")
            assert "last lines: bad." in said.message
            await eventually(lambda: images_and_states(podman) == [(TWO, "running")], 20)
            assert (await settled(found, web(TWO)))["web"].state == "Applied"
            (shown,) = containers(podman)
            # the agent may be quicker than Podman is done, which then complains
            await asyncio.to_thread(podman.command, "stop", shown["Id"], check=False)
            await eventually(lambda: images_and_states(podman) == [(TWO, "running")], 20)
            await settled(found)
            await eventually(lambda: containers(podman) == [], 20)

    podman.inside(scenario)


def test_it_is_shut_in_as_with_docker(podman: NetworkedEngine, tmp_path: Path) -> None:
    """From inside it reaches neither another deployment nor the machine, and has its user, limits and secret file."""

    async def scenario() -> None:
        more: dict[str, Any] = {
            "resources": {"memory": "32Mi", "cpus": 0.5, "pids": 60},
            "secretFiles": [{"path": "/etc/app/token", "secret": "web", "key": "token"}],
            "user": "1000",
        }
        host = await asyncio.start_server(say_hello, "0.0.0.0", 9999)
        async with host, running(podman, tmp_path, secrets=lambda _: Given({"web/token": "canary"})) as found:
            results = await settled(found, web(ONE, name="one", **more), web(TWO, name="other", host=8082))
            assert {said.state for said in results.values()} == {"Applied"}
            by_name = {shown["Config"]["Hostname"]: shown for shown in containers(podman)}
            one, other = by_name["one"], network_of(by_name["other"])
            gateways = (other["Gateway"], network_of(one)["Gateway"])
            assert await page(9999, gateways[0]) == "hello"
            targets = [f"{host} {port}" for host in (other["IPAddress"], *gateways) for port in (8080, 8082, 9999)]
            assert await reached_from(podman, one, ["127.0.0.1 8080", *targets]) == ["127.0.0.1 8080"]
            assert (await page(8081), await page(8082)) == ("version 1", "version 2")
            script = "cat /etc/app/token /proc/1/status /proc/net/if_inet6; touch /new || echo readonly"
            inside = podman.command("exec", one["Id"], "sh", "-c", script).stdout
            assert inside.startswith("canary")
            assert inside.endswith("readonly\n"), "a root that can be written, or IPv6"
            assert {"Uid:\t1000\t1000\t1000\t1000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"} <= set(
                inside.splitlines()
            ) | {inside.splitlines()[0].removeprefix("canary")}
            limits = one["HostConfig"]
            assert (limits["Memory"], limits["NanoCpus"], limits["PidsLimit"]) == (2**25, 500_000_000, 60)
            await settled(found)
            await eventually(lambda: containers(podman) == [], 20)

    podman.inside(scenario)
