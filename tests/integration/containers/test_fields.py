"""What a deployment says of its container, seen from inside and in the engine: user, files, image, memory, end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import pytest

from agent.deployments.given import Given
from agent.deployments.shared_directories import SharedDirectory
from agent.deployments.workload import Workload
from tests.support.container_machine import containers, images_and_states, page, running, settled, web
from tests.support.networked_engine import NetworkedEngine, write_image
from tests.support.registry import registry
from tests.support.waiting import eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

CANARY: Final = "canary-5f1e"
FILES: Final = [{"path": "/etc/app/token", "secret": "web", "key": "token"}]


def given(_: Workload) -> Given:
    return Given({"web/token": CANARY, "registry/password": f"{CANARY}-pull"})


def inside(machine: NetworkedEngine, script: str) -> str:
    (shown,) = containers(machine)
    finished = machine.command("exec", shown["Id"], "sh", "-c", script, check=False)
    return finished.stdout + finished.stderr


def test_a_secret_file_is_in_memory_and_its_users_alone(machine: NetworkedEngine, tmp_path: Path) -> None:
    """Its user reads it and cannot change it; no disk has it, the engine's neither; with the deployment it goes."""

    async def scenario() -> None:
        wanted = web(secretFiles=FILES, user="1000:1001")
        async with running(machine, tmp_path, secrets=given) as found:
            said = (await settled(found, wanted))["web"]
            assert (said.state, said.message) == ("Applied", "")
            assert inside(machine, "id -u; id -g; cat /etc/app/token").split() == ["1000", "1001", CANARY]
            assert "Read-only file system" in inside(machine, "echo x > /etc/app/token")
            (file,) = [path for path in machine.memory.rglob("*") if path.is_file()]
            status = file.stat()
            assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1000, 1001, 0o400)
            assert not _on_disk(machine.folder, tmp_path)
            await settled(found)
            await eventually(lambda: not any(path.is_file() for path in machine.memory.rglob("*")), 10)

    machine.inside(scenario)


def _on_disk(*folders: Path) -> bool:
    """Say whether any file below holds the canary."""
    found = subprocess.run(["grep", "-rqs", CANARY, *folders], check=False, timeout=60)
    return found.returncode == 0


def test_after_the_memory_was_lost_it_is_made_anew(machine: NetworkedEngine, tmp_path: Path) -> None:
    """As after a boot of the server: the engine cannot start it without its files, and the agent mends that."""

    async def scenario() -> None:
        wanted = web(secretFiles=FILES)
        async with running(machine, tmp_path, secrets=given) as found:
            await settled(found, wanted)
        await asyncio.to_thread(machine.shut_down)
        shutil.rmtree(machine.memory)
        await asyncio.to_thread(machine.boot)
        async with running(machine, tmp_path, secrets=given) as found:
            await settled(found, wanted)
            await eventually(lambda: images_and_states(machine) == [("web:1", "running")], 10)
            assert (await settled(found, wanted))["web"].state == "Applied"
            assert inside(machine, "cat /etc/app/token") == CANARY

    machine.inside(scenario)


def test_who_cannot_be_given_files_is_told_why(machine: NetworkedEngine, tmp_path: Path) -> None:
    """An image whose user is a name needs the number; without memory to write to nothing is started."""

    async def scenario() -> None:
        machine.make_image("named:1", "named", changes=["USER app"])
        async with running(machine, tmp_path, secrets=given) as found:
            said = (await settled(found, web("named:1", secretFiles=FILES)))["web"]
            assert (said.state, said.reason) == ("Failed", "UserUnknown")
        disk = tmp_path / "disk"
        async with running(machine, tmp_path, secrets=given, secret_files=disk) as found:
            said = (await settled(found, web(secretFiles=FILES)))["web"]
            assert (said.state, said.reason) == ("Failed", "NotInMemory")
            assert not any(path.is_file() for path in disk.rglob("*"))

    machine.inside(scenario)


def test_an_image_is_fetched_with_the_password_of_a_secret(
    machine: NetworkedEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody else gets it; Always asks again for each instance, Never for none; the password stands nowhere."""
    caplog.set_level(logging.DEBUG)
    layer = tmp_path / "layer.tar"
    write_image(layer, "private")
    data = tmp_path / "data"

    async def scenario() -> None:
        with registry(layer, "robot", f"{CANARY}-pull") as there:
            credentials = {"username": "robot", "password": {"name": "registry", "key": "password"}}
            wrong = {**credentials, "password": {"name": "web", "key": "token"}}
            async with running(machine, data, secrets=given) as found:
                for refused in (web(there.name), web(there.name, registry=wrong)):
                    said = (await settled(found, refused))["web"]
                    assert (said.state, said.reason) == ("Failed", "PullFailed")
                    assert CANARY not in said.message
                assert (await settled(found, web(there.name, registry=credentials)))["web"].state == "Applied"
                assert await page(8081) == "private"
                assert there.pulls == 1

                async def again(policy: str, **more: Any) -> None:
                    wanted = web(there.name, registry=credentials, pullPolicy=policy, **more)
                    assert (await settled(found, wanted))["web"].state == "Applied"

                await again("Always")
                assert there.pulls == 1, "nothing was set up"
                await again("Always", env={"A": "1"})
                assert there.pulls == 2
                await again("Never", env={"A": "2"})
                assert there.pulls == 2
                said = (await settled(found, web("absent:1", pullPolicy="Never")))["web"]
                assert (said.reason, said.message.split(",")[0]) == (
                    "PullFailed",
                    "image absent:1 is not on this server",
                )

    machine.inside(scenario)
    shown = json.dumps(containers(machine))
    assert CANARY not in shown + caplog.text
    assert not _on_disk(data)


def test_memory_and_end_are_as_written(machine: NetworkedEngine, tmp_path: Path) -> None:
    """A tmpfs has its size, and /tmp too when it is named; who ignores the request to end has the grace and no more."""

    async def scenario() -> None:
        stubborn = ["sh", "-c", "trap '' TERM; httpd -p 8080 -h /www & while :; do sleep 1; done"]
        tmpfs = [{"path": "/var/cache", "size": "1Mi"}, {"path": "/tmp", "size": "2Mi"}]
        async with running(machine, tmp_path) as found:
            await settled(found, web(command=stubborn, tmpfs=tmpfs, stopGrace="3s"))
            for path, size in (("/var/cache", 1024), ("/tmp", 2048)):
                assert "No space left on device" in inside(machine, f"dd if=/dev/zero of={path}/x bs=1k count=4096")
                assert int(inside(machine, f"ls -l {path}/x").split()[4]) == size * 1024
            assert "can't create" in inside(machine, "echo x > /var/other")
            began = time.monotonic()
            await settled(found)
            await eventually(lambda: containers(machine) == [], 20)
            assert time.monotonic() - began > 2.5  # not before its grace

    machine.inside(scenario)


def test_a_directory_of_the_server_is_its_owners_to_share(machine: NetworkedEngine, tmp_path: Path) -> None:
    """By its name, to the teams that are listed, and read-only where the owner says so; none of it is ever deleted."""
    media, data = tmp_path / "media", tmp_path / "data"
    media.mkdir()
    (media / "film").write_text("a film")
    shared = {
        "media": SharedDirectory(str(media), frozenset({"shop"}), read_only=True),
        "scratch": SharedDirectory(str(media), frozenset({"shop"})),
        "others": SharedDirectory("/etc", frozenset({"data"})),
    }

    def wanted(name: str) -> Any:  # an item
        return web(volumes=[{"name": "m", "path": "/media", "shared": name}], deletionPolicy="delete")

    async def scenario() -> None:
        async with running(machine, data, shared=shared) as found:
            assert (await settled(found, wanted("media")))["web"].state == "Applied"
            assert "Read-only file system" in inside(machine, "cat /media/film; touch /media/x")
            for name in ("others", "absent"):
                said = (await settled(found, wanted(name)))["web"]
                assert (said.state, said.reason) == ("Failed", "NotGranted")
                assert inside(machine, "cat /media/film") == "a film"
            assert (await settled(found, wanted("scratch")))["web"].state == "Applied"
            await eventually(lambda: len(containers(machine)) == 1, 10)
            inside(machine, "touch /media/x")
            found.remembered.released = frozenset({"shop/web"})
            await settled(found)
            await eventually(lambda: containers(machine) == [], 10)

    machine.inside(scenario)
    assert sorted(path.name for path in media.iterdir()) == ["film", "x"]


@pytest.fixture(autouse=True)
def without_files(machine: NetworkedEngine) -> None:
    """Begin with no file of a secret."""
    shutil.rmtree(machine.memory, ignore_errors=True)
    assert os.access(machine.memory.parent, os.W_OK)
