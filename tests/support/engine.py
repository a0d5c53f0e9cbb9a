"""A Docker Engine of the tests' own: a private dockerd, and the little of the docker command that tests need.

Its socket, images and containers lie in a directory of their own, so that an engine of the machine is never touched.
It makes no network and no firewall rules: containers are given the machine's network, or none (for an engine that has
networks see :mod:`tests.support.networked_engine`). No image is pulled; they come from
:meth:`DockerEngine.import_image` and :meth:`DockerEngine.build`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.orphans import tied
from tests.support.parts import require
from tests.support.waiting import wait_for

Finished = subprocess.CompletedProcess[str]
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 30.0
MINUTES: Final = 300.0
"""For what moves an image (seconds)."""


class DockerEngine:
    """A running engine. ``socket`` is what ``DOCKER_HOST`` would be."""

    def __init__(self, client: Path, folder: Path) -> None:
        self.folder = folder
        self.socket = f"unix://{folder / 'docker.sock'}"
        self._client = client
        # neither what the person has configured nor a builder that this engine may lack
        self._environment = {**os.environ, "DOCKER_CONFIG": str(folder / "client"), "DOCKER_BUILDKIT": "0"}

    def command(
        self, *arguments: str | Path, stdin: str | None = None, timeout: float = 60, check: bool = True
    ) -> Finished:
        """Run ``docker …`` against this engine; with ``check`` a failure shows what it printed."""
        finished = subprocess.run(
            [self._client, "--host", self.socket, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=self._environment,
        )
        if check:
            shown = " ".join(map(str, arguments))
            assert finished.returncode == 0, f"docker {shown}\n{finished.stdout[-4000:]}\n{finished.stderr[-4000:]}"
        return finished

    def import_image(self, tag: str, rootfs: Path, *, changes: Sequence[str] = ()) -> None:
        """Make an image of a tar archive with a root file system; ``changes`` are Dockerfile lines such as ENV."""
        options = [word for change in changes for word in ("--change", change)]
        self.command("import", *options, rootfs, tag, timeout=MINUTES)

    def build(self, tag: str, context: Path, *, arguments: Mapping[str, str] | None = None) -> str:
        """Build the Dockerfile of a directory and return what was printed."""
        options = [word for name, value in (arguments or {}).items() for word in ("--build-arg", f"{name}={value}")]
        built = self.command("build", "--network", "host", "--tag", tag, *options, context, timeout=MINUTES)
        return built.stdout + built.stderr

    def inspect(self, name: str) -> dict[str, Any]:
        """Return what the engine knows of an image or a container."""
        found: list[dict[str, Any]] = json.loads(self.command("inspect", name).stdout)
        return found[0]

    def run(
        self, image: str, *command: str, options: Sequence[str] = (), stdin: str | None = None, check: bool = True
    ) -> Finished:
        """Run a container to its end and remove it."""
        interactive = () if stdin is None else ("--interactive",)
        return self.command("run", "--rm", *interactive, *options, image, *command, stdin=stdin, check=check)

    def start(self, image: str, *command: str, options: Sequence[str] = ()) -> Container:
        """Start a container that stays."""
        return Container(self, self.command("run", "--detach", *options, image, *command).stdout.strip())

    def remove_containers(self) -> None:
        """Kill and remove every container; a failed test may have left some."""
        names = self.command("ps", "--all", "--quiet").stdout.split()
        if names and self.command("rm", "--force", "--volumes", *names, check=False).returncode != 0:
            # An engine that is ended while it starts a container leaves the container's files mounted, and then says
            # "device or resource busy" whenever it is to remove it.
            unmount_all(self.folder / "data" / "overlay2")
            left = self.command("ps", "--all", "--quiet").stdout.split()
            if left:
                self.command("rm", "--force", "--volumes", *left)


@dataclass(frozen=True)
class Container:
    """A container that was started; ``id`` is its full name."""

    engine: DockerEngine
    id: str

    @property
    def state(self) -> dict[str, Any]:
        """Status, exit code and health, as the engine says them."""
        state: dict[str, Any] = self.engine.inspect(self.id)["State"]
        return state

    def exec(self, *command: str, check: bool = True) -> Finished:
        """Run a command inside."""
        return self.engine.command("exec", self.id, *command, check=check)

    def logs(self) -> str:
        """Everything it has written."""
        written = self.engine.command("logs", self.id)
        return written.stdout + written.stderr

    def stop(self, seconds: int = 10) -> int:
        """Ask it to end as ``docker stop`` does; return the exit code, 137 when it had to be killed."""
        self.engine.command("stop", "--time", str(seconds), self.id, timeout=seconds + 30)
        return int(self.state["ExitCode"])

    def start_again(self) -> None:
        """Start it after it has ended, with the same volumes."""
        self.engine.command("start", self.id)


@contextmanager
def docker_engine() -> Iterator[DockerEngine]:
    """Run a dockerd until the block ends, and every container with it.

    A machine without the programs, or without root, skips the test; a dockerd that does not come up fails it.
    """
    daemon, client = require("dockerd"), require("docker")
    if os.geteuid() != 0:
        pytest.skip("needs root: dockerd has to mount file systems and make namespaces")
    # not below pytest's directory: a socket's path may have 107 bytes, and images need not be kept for three runs
    folder = Path(tempfile.mkdtemp(prefix="engine-"))
    engine = DockerEngine(client, folder)
    log = folder / "dockerd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            tied(_daemon(daemon, folder, engine.socket), signal.SIGTERM),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_up(engine, process, log)
        yield engine
        engine.remove_containers()
    finally:
        end_engine(process)
        unmount_all(folder)
        shutil.rmtree(folder)


def _daemon(program: Path, folder: Path, socket: str) -> list[str | Path]:
    return [
        program,
        *("--host", socket, "--pidfile", folder / "pid"),
        *("--data-root", folder / "data", "--exec-root", folder / "run"),
        *("--bridge=none", "--iptables=false", "--ip6tables=false"),
        *("--exec-opt", "native.cgroupdriver=cgroupfs"),  # systemd need not be what runs here
        *("--shutdown-timeout", "5"),
    ]


def _wait_until_up(engine: DockerEngine, process: subprocess.Popen[bytes], log: Path) -> None:
    def up() -> bool:
        return process.poll() is not None or engine.command("version", check=False).returncode == 0

    wait_for(up, START_SECONDS, what="an answer of dockerd")
    if process.poll() is not None:
        said = log.read_text(errors="replace")[-3000:]
        pytest.fail(f"dockerd does not run on this machine; it ended with {process.returncode} and said:\n{said}")


def end_engine(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM lets dockerd stop its containers and its containerd; they would outlive a SIGKILL."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def unmount_all(folder: Path) -> None:
    """Undo the mounts that dockerd leaves behind: the network namespace, and its data where it did not come up."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in reversed([point for point in points if point.startswith(f"{folder}/")]):
        subprocess.run(["umount", "--lazy", point], check=True)
