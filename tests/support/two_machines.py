"""Two machines in network namespaces of their own and a cable between them, which can be pulled out.

``centre``    control plane, git remote, Traefik, and whoever asks them: what :meth:`TwoMachines.at_centre` runs
``server``    a container engine and an agent; containers answer at :data:`SERVER`

All that a scenario starts at the centre is tied to one thread, which lives as long as the machines.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

from tests.support import documents
from tests.support.container_machine import CHECK, SERVE, containers
from tests.support.fleet import NOTHING, Installation, Process, installation, web_host
from tests.support.forking import ROOT, Forker
from tests.support.networked_engine import NetworkedEngine, networked_engine
from tests.support.orphans import tied
from tests.support.traefik import Front
from tests.support.waiting import wait_for

T = TypeVar("T")
CENTRE: Final = "192.0.2.1"
SERVER: Final = "192.0.2.2"
AGENT: Final = f"vps-{os.getpid()}"
"""Files of secrets lie in the memory of the real machine by the name of the agent, so no other test may have it."""
_CLONE_NEWNET: Final = 0x40000000


class TwoMachines:
    def __init__(self, engine: NetworkedEngine, centre: int) -> None:
        self.engine = engine
        self._centre = Path(f"/proc/{centre}/ns/net")
        self._thread = ThreadPoolExecutor(1, initializer=self._enter)

    def at_centre(self, scenario: Callable[[], T]) -> T:
        """Run a function as a program of the centre."""
        return self._thread.submit(scenario).result()

    def _enter(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with self._centre.open() as namespace:
            if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def cut(self) -> None:
        """Pull the cable out: packets vanish, connections are not closed."""
        _at(self._centre, "ip", "link", "set", "cable", "down")

    def mend(self) -> None:
        _at(self._centre, "ip", "link", "set", "cable", "up")

    def close(self) -> None:
        self._thread.shutdown()


def _at(namespace: Path, *command: str) -> None:
    subprocess.run(["nsenter", f"--net={namespace}", "--", *command], check=True, capture_output=True, timeout=20)


@contextmanager
def two_machines() -> Iterator[TwoMachines]:
    """Connect them until the block ends."""
    held = "ip link set lo up && echo up && exec sleep infinity"
    with networked_engine() as engine:
        holder = subprocess.Popen(tied(["unshare", "--net", "sh", "-c", held]), stdout=subprocess.PIPE, text=True)
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "up\n"
            centre = Path(f"/proc/{holder.pid}/ns/net")
            other = engine.namespace.parts[2]
            _at(centre, *("ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", other))
            for namespace, address in ((centre, CENTRE), (engine.namespace, SERVER)):
                _at(namespace, "ip", "address", "add", f"{address}/24", "dev", "cable")
                _at(namespace, "ip", "link", "set", "cable", "up")
            machines = TwoMachines(engine, holder.pid)
            try:
                yield machines
            finally:
                machines.close()
        finally:
            holder.kill()
            holder.communicate()


class Site:
    """A fleet on two machines: ``serve``, Traefik and git at the centre, an agent with containers at the server."""

    def __init__(self, machines: TwoMachines, one: Installation) -> None:
        self.machines = machines
        self.one = one
        self.agent: Process | None = None
        self._client: httpx.Client | None = None

    # --- the server ---------------------------------------------------------------------------------------------

    def start_agent(self, *, wait: bool = True) -> None:
        self.agent = self.one.run_agent(AGENT)
        if wait:
            self.one.wait_connected(AGENT)

    def kill_agent(self) -> None:
        assert self.agent is not None
        self.agent.kill()
        self.agent.wait()

    def containers(self) -> list[tuple[str, str, str]]:
        """Return deployment, image and state of every container of the agent, in order."""
        names = '{{.Label "io.cloudlunacy.deployment"}} {{.Image}} {{.State}}'
        words = ("ps", "--all", "--filter", f"label=io.cloudlunacy.agent={AGENT}", "--format", names)
        lines = self.machines.engine.command(*words).stdout.splitlines()
        return sorted((name, image, state) for name, image, state in (line.split() for line in lines))

    def networks(self) -> int:
        found = self.machines.engine.command("network", "ls", "--quiet", "--filter", "name=cloudlunacy")
        return len(found.stdout.split())

    def started(self) -> dict[str, tuple[str, str]]:
        """Return id and time of start of the container of each deployment."""
        found = (shown for shown in containers(self.machines.engine))
        return {shown["Config"]["Hostname"]: (shown["Id"], shown["State"]["StartedAt"]) for shown in found}

    def wait_for_containers(self, *wanted: tuple[str, str, str], deadline: float = 60) -> None:
        """Wait until exactly these are there."""
        expected = sorted(wanted)
        try:
            wait_for(lambda: self.containers() == expected, deadline, what=f"{expected}")
        except AssertionError as error:
            raise AssertionError(f"{error}; there are {self.containers()}\n{self.trouble()}") from None

    # --- what people see ----------------------------------------------------------------------------------------

    def page(self, name: str = "web") -> str:
        """Ask Traefik for the host of a deployment over TLS, as its clients do; return status and body."""
        if self._client is None:
            self._client = httpx.Client(verify=self.one.tls, trust_env=False, timeout=5)
        host = self.host(name)
        request = self._client.build_request(
            "GET", self.https, headers={"Host": host}, extensions={"sni_hostname": host}
        )
        try:
            answer = self._client.send(request)
        except httpx.HTTPError as error:
            return type(error).__name__
        return f"{answer.status_code} {answer.text.strip()}"

    @staticmethod
    def host(name: str) -> str:
        return web_host(name)

    @property
    def front(self) -> Front:
        assert self.one.front is not None
        return self.one.front

    @property
    def https(self) -> str:
        return f"https://127.0.0.1:{self.front.ports[self.front.fleet.spec.entry_points.https]}/"

    def wait_for_page(self, text: str, name: str = "web", *, deadline: float = 60) -> None:
        try:
            wait_for(lambda: self.page(name) == f"200 {text}", deadline, what=f"{text!r} from {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {self.page(name)}\n{self.trouble()}") from None

    def wait_in_service(self, text: str, name: str = "web") -> None:
        """Wait until a deployment answers for good. One that answers before its agent has found it healthy is taken out
        of fronts again until then: nobody has promised yet that it serves.
        """
        try:
            wait_for(lambda: self._is_healthy(name), 60, what=f"{name} being healthy")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.trouble()}") from None
        self.wait_for_page(text, name)

    def _is_healthy(self, name: str) -> bool:
        found = (self.one.agent(AGENT) or {}).get("endpoints", ())
        mine = [one for one in found if one["deployment"] == f"shop/{name}"]
        return bool(mine) and all(one["verdict"] == "healthy" and one["inService"] for one in mine)

    def trouble(self) -> str:
        with suppress(OSError):
            return f"--- agent\n{self.one.agent_log(AGENT)[-3000:]}\n--- serve\n{self.one.log()[-3000:]}"
        return ""

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


PATIENT: Final = {**CHECK, "timeout": "5s", "startPeriod": "1m", "failures": 5}
"""A machine that has much else to do makes nobody ill."""
IDLE: Final = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"]
"""Runs, and serves nothing."""


def app(
    image: str = "web:1", name: str = "web", *, port: int = 8081, strategy: str = "blue-green", **more: Any
) -> bytes:
    """Return a deployment whose page is the version of its image."""
    spec = {
        "image": image,
        "command": ["sh", "-c", SERVE],
        "healthCheck": PATIENT,
        "rollout": {"strategy": strategy, "deadline": "2m"},
        "stopGrace": "1s",
        **more,
    }
    return documents.deployment(name, AGENT, port=port, **spec)


def app_route(name: str = "web", **more: Any) -> bytes:
    """Return a route to it, by TLS at its usual host."""
    backends = [{"deployment": name}]
    return documents.route(name, web_host(name), backends=backends, tls={"mode": "terminate"}, **more)


def files_of(name: str, content: bytes) -> dict[str, bytes | str | None]:
    return {f"deployments/shop/{name}.yaml": content, f"routes/shop/{name}.yaml": app_route(name)}


@dataclass
class Forking(Installation):
    """An installation whose programs are forked from one that has everything imported."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._forker = Forker({"PYTHONPATH": str(ROOT)})

    def launch(self, words: Sequence[str | Path], log: Path, environment: Mapping[str, str] = NOTHING) -> Process:
        assert not environment, "what forks has its own"
        said = [str(word) for word in words]
        entered = next((Path(word.removeprefix("--net=")) for word in said if word.startswith("--net=")), None)
        return self._forker.start(said[said.index("reconciler") + 1 :], log, entered)

    def close(self) -> None:
        super().close()
        self._forker.close()


@contextmanager
def site(
    machines: TwoMachines, folder: Path, *, capabilities: Sequence[str] = ("container",), **more: Any
) -> Iterator[Site]:
    """Run one with an enrolled agent at work and nothing on it. To be used at the centre."""
    start: dict[str, bytes | str | None] = {
        "fleet.yaml": documents.fleet(documents.team("shop", agents=[AGENT])),
        "certificates/apps.yaml": documents.certificate("apps", f"*.app.{documents.DOMAIN}"),
    }
    engine = machines.engine
    places: dict[str, Any] = {
        "address": CENTRE,
        "agent_address": SERVER,
        "agent_entry": ["nsenter", f"--net={engine.namespace}", "--"],
        "agent_options": ["--engine", engine.socket],
    }
    with installation(folder, start, **places, **more) as one:
        found = Site(machines, one)
        try:
            done = one.enrol(AGENT, *(word for capability in capabilities for word in ("--capability", capability)))
            assert done.returncode == 0, done.stderr
            found.start_agent()
            yield found
        finally:
            found.close()


def wipe(machines: TwoMachines) -> None:
    """Leave nothing on the engine but its images."""
    engine = machines.engine
    engine.remove_containers()
    engine.command("network", "prune", "--force")
    if volumes := engine.command("volume", "ls", "--quiet").stdout.split():
        engine.command("volume", "rm", *volumes)
