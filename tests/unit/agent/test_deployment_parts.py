"""Parts of deployments: what is kept, how is asked, what the engine and the firewall are told."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiodocker.exceptions import DockerError

from agent.deployments.container_config import bridge_name, container_config, network_configs
from agent.deployments.driver import DriverError
from agent.deployments.engine_errors import of_engine
from agent.deployments.firewall import IpTables, rules
from agent.deployments.given import Given
from agent.deployments.memory import MemoryFiles
from agent.deployments.observed import Instance
from agent.deployments.probing import ask
from agent.deployments.rollout import Attempt, Memory
from agent.deployments.secret_files import file_system_of
from agent.deployments.workload import Key
from schemas.deployment import DeploymentHealthCheck
from tests.support.model_engine import ModelDriver, ModelEngine, workload
from tests.support.ports import free_port

KEY = Key("shop", "web")
HERE = Instance("1", KEY, "sha256:1", "a", "running", address="127.0.0.1")
WHOLE = Memory(
    workload(), Attempt("sha256:1", 5.0, 2), delete_data=True, type="container", ports=((80, 20007), (443, 8443))
).failed("sha256:2", "Exited", "It exited with 1.", 7.0, retry=False)


def test_memory_comes_back(tmp_path: Path) -> None:
    """What was saved is read by the next agent, from a file that only its user reads."""
    files = MemoryFiles(tmp_path, "boot-1")
    files.save(KEY, WHOLE)
    assert files.load(100.0) == {KEY: WHOLE}
    (path,) = tmp_path.rglob("*.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    files.forget(KEY)
    files.forget(KEY)
    assert files.load(100.0) == {}


def test_times_of_another_boot_begin_anew(tmp_path: Path) -> None:
    """A monotonic clock that was set back makes no deadline longer or shorter than it is."""
    memory = Memory(attempt=Attempt("sha256:1", 5000.0))
    MemoryFiles(tmp_path, "boot-1").save(KEY, memory)
    assert MemoryFiles(tmp_path, "boot-2").load(10.0) == {KEY: Memory(attempt=Attempt("sha256:1", 10.0))}


def test_memory_of_a_former_version_is_read(tmp_path: Path) -> None:
    """It did not keep where a deployment served; everything else counts."""
    files = MemoryFiles(tmp_path, "boot-1")
    files.save(KEY, WHOLE)
    (path,) = tmp_path.rglob("*.json")
    former = json.loads(path.read_bytes())
    del former["ports"]
    path.write_text(json.dumps(former))
    assert files.load(100.0) == {KEY: replace(WHOLE, ports=())}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"good": 1}', b"\xff"])
def test_damaged_memory_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    """The others are read, and nothing falls over."""
    files = MemoryFiles(tmp_path, "boot-1")
    files.save(KEY, WHOLE)
    files.save(Key("shop", "api"), WHOLE)
    (tmp_path / "deployments" / "shop" / "web.json").write_bytes(content)
    assert list(files.load(0.0)) == [Key("shop", "api")]


@contextmanager
def _server(answer: bytes | None) -> Iterator[int]:
    """A server on loopback that answers one client with these bytes, or not at all, until that one leaves."""

    def serve() -> None:
        with listening.accept()[0] as client:
            client.recv(1024)
            if answer is not None:
                client.sendall(answer)
                client.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                client.recv(1024)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10.0)
        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listening.getsockname()[1])
        thread.join()


@pytest.mark.parametrize(
    ("answer", "check", "good", "detail"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", {"http": {"path": "/up"}}, True, ""),
        (b"HTTP/1.1 500 Oh\r\n\r\n", {"http": {"path": "/up"}}, False, "HTTP 500 from /up"),
        (b"HTTP/1.1 401 No\r\n\r\n", {"http": {"path": "/up", "status": 401}}, True, ""),
        (b"SSH-2.0-x\r\n", {"http": {"path": "/up"}}, False, "no HTTP from /up at port {port}"),
        (b"HTTP/1.1 ", {"http": {"path": "/up"}}, False, "no HTTP from /up at port {port}"),
        (b"A" * 5000, {"http": {"path": "/up"}}, False, "no HTTP from /up at port {port}"),
        (None, {"http": {"path": "/up"}}, False, "no answer within 200ms from /up at port {port}"),
        (None, {"tcp": {}}, True, ""),
    ],
)
def test_probes_say_what_they_saw(answer: bytes | None, check: dict[str, Any], good: bool, detail: str) -> None:
    """Whatever answers, or does not, becomes a short sentence."""
    with _server(answer) as port:
        kind, rest = next(iter(check.items()))
        asked = DeploymentHealthCheck.model_validate({kind: {**rest, "port": port}, "timeout": "200ms"})
        probe = asyncio.run(ask(asked, HERE, ModelDriver(ModelEngine())))
        assert (probe.good, probe.detail) == (good, detail.format(port=port))


def test_nobody_at_the_port_is_said() -> None:
    """A refused connection is named as people know it."""

    port = free_port()
    check = DeploymentHealthCheck.model_validate({"tcp": {"port": port}})
    probe = asyncio.run(ask(check, HERE, ModelDriver(ModelEngine())))
    assert probe.detail == f"Connection refused from port {port}"


def test_a_container_may_do_little() -> None:
    """What isolates is asked for whatever the deployment says; a path of the machine cannot even be named."""
    wanted = workload(
        resources={"memory": "64Mi", "cpus": 0.5}, volumes=[{"name": "data", "path": "/etc", "readOnly": True}]
    )
    config = container_config("vps-1", wanted, "a", {8080: 8081}, publish_on=("192.0.2.1",), environment={}, files={})
    host = config["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges"])
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (
        2**26,
        2**26,
        500_000_000,
        1024,
    )
    assert host["PortBindings"] == {"8080/tcp": [{"HostIp": "192.0.2.1", "HostPort": "8081"}]}
    (mount,) = host["Mounts"]
    assert (mount["Type"], mount["Source"]) == ("volume", "cloudlunacy_vps-1_shop_web_data")
    assert "Binds" not in host
    assert "Privileged" not in host


def test_networks_have_names_and_subnets_of_their_own() -> None:
    """An interface's name fits and begins as the firewall expects; all subnets of the range are offered, each once."""
    assert len(bridge_name("vps-1", KEY)) == 15
    assert bridge_name("vps-1", KEY).startswith("cl-")
    offered = [config["IPAM"]["Config"][0]["Subnet"] for config in network_configs("vps-1", KEY, "10.9.0.0/24")]
    assert sorted(offered) == sorted(f"10.9.0.{16 * number}/28" for number in range(16))


@pytest.mark.parametrize(
    ("status", "said", "reason", "retryable", "engine"),
    [
        (900, "Cannot connect", "EngineUnavailable", True, True),
        (500, "driver failed: Bind for 0.0.0.0:80 failed: port is already allocated", "PortTaken", True, False),
        (400, 'exec: "/x": stat /x: no such file or directory: unknown', "CannotStart", False, False),
        (400, "No command specified", "CannotStart", False, False),
        (500, "failed to update store: open : no such file or directory", "EngineRefused", True, False),
        (400, "invalid reference format", "EngineRefused", False, False),
        (404, "No such container: 1", "NotThere", True, False),
    ],
)
def test_what_the_engine_says_is_understood(status: int, said: str, reason: str, retryable: bool, engine: bool) -> None:
    """Each kind of failure has a reason, and it is known whether waiting helps."""
    error = of_engine(DockerError(status, said))
    assert (error.reason, error.retryable, error.engine) == (reason, retryable, engine)


def test_without_a_firewall_nothing_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the rules cannot be made that is an error, not a warning."""
    assert "--dst-type LOCAL -j DROP" in rules(ipv6=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DriverError, match="so none is started: iptables said No such file"):
        asyncio.run(IpTables().ensure())


def test_a_container_is_as_its_deployment_says() -> None:
    """User, grace, directories in memory and files of secrets; a user without a group never gets root's."""
    wanted = workload(user="1000", stopGrace="1500ms", tmpfs=[{"path": "/run", "size": "1Mi"}])
    files = {"/etc/token": Path("/run/cloudlunacy/vps-1/web/0")}
    config = container_config("vps-1", wanted, "a", {}, publish_on=(), environment={"A": "b"}, files=files)
    assert (config["User"], config["StopTimeout"], config["Env"]) == ("1000:1000", 2, ["A=b"])
    host = config["HostConfig"]
    assert host["Mounts"] == [
        {"Type": "bind", "Source": "/run/cloudlunacy/vps-1/web/0", "Target": "/etc/token", "ReadOnly": True}
    ]
    assert host["Tmpfs"] == {
        "/tmp": f"rw,nosuid,nodev,noexec,size={64 * 2**20},mode=1777",
        "/run": f"rw,nosuid,nodev,noexec,size={2**20},mode=1777",
    }


def test_more_fields_restart_nothing(tmp_path: Path) -> None:
    """What an older version kept is read, and is the same version as what says nothing of the newer fields."""
    older = {
        "boot": "boot-1",
        "good": {
            "team": "shop",
            "name": "web",
            "spec": {"type": "container", "agents": ["vps-1"], "image": "web:good", "volumes": [], "env": {}},
            "secretsVersion": "",
        },
        "attempt": None,
        "failure": None,
        "deleteData": False,
        "type": "container",
    }
    path = tmp_path / "deployments" / "shop" / "web.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(older))
    good = MemoryFiles(tmp_path, "boot-1").load(1.0)[KEY].good
    assert good is not None
    assert good.digest == workload(pullPolicy="IfNotPresent", stopGrace="10s", tmpfs=[], secretFiles=[]).digest
    assert good.digest == workload(pullPolicy="Always").digest
    for change in ({"user": "1000"}, {"stopGrace": "20s"}, {"tmpfs": [{"path": "/run"}]}):
        assert workload(**change).digest != good.digest


def test_files_of_secrets_are_only_written_to_memory(tmp_path: Path) -> None:
    """The kernel is asked what a directory lies on; the longest mount point counts."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "23 22 0:5 / /run rw - tmpfs tmpfs rw\n"
        "24 23 8:2 / /run/disk\\040of\\040old rw - ext4 /dev/sdb1 rw\n"
    )
    found = {name: file_system_of(Path(name), mounts) for name in ("/run/x", "/runner", "/run/disk of old/x")}
    assert found == {"/run/x": "tmpfs", "/runner": "ext4", "/run/disk of old/x": "ext4"}
    assert file_system_of(Path("/run"), tmp_path / "absent") == ""


def test_values_of_secrets_are_not_shown() -> None:
    """Whoever prints what a driver is given sees no value."""
    assert "canary" not in repr(Given({"web/token": "canary"}))
