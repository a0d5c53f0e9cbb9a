"""A Docker Engine with networks and firewall rules, on a machine of its own as far as the network goes.

It runs in a network namespace: bridges, addresses, published ports and rules of the tests are there and nowhere else,
and end with it. ``inside`` runs a function as a program of that machine. Images are busybox and little more.
"""

from __future__ import annotations

import asyncio
import ctypes
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from tests.support.deployment_agent import in_memory
from tests.support.engine import START_SECONDS, DockerEngine, end_engine, unmount_all
from tests.support.orphans import tied
from tests.support.parts import require
from tests.support.waiting import wait_for

T = TypeVar("T")
_CLONE_NEWNET: Final = 0x40000000
_APPLETS: Final = (
    "sh",
    "httpd",
    "wget",
    "nc",
    "sleep",
    "cat",
    "touch",
    "id",
    "echo",
    "ping",
    "ls",
    "dd",
    "tail",
    "kill",
)


class NetworkedEngine(DockerEngine):
    """A running engine in a network namespace, which survives a restart of the engine."""

    def __init__(self, client: Path, folder: Path, daemon: Path, holder: int) -> None:
        super().__init__(client, folder)
        self.namespace = Path(f"/proc/{holder}/ns/net")
        self._daemon = daemon
        self._process: subprocess.Popen[bytes] | None = None
        self.memory = in_memory(self.socket)
        """Where agents put files of secrets."""
        self._starter = ThreadPoolExecutor(1)
        """What it starts is tied to its thread, which has to live as long."""

    def boot(self) -> None:
        """Start the engine."""
        log = self.folder / "engine.log"
        with log.open("ab") as output:
            process = self._starter.submit(
                subprocess.Popen,
                tied(["nsenter", f"--net={self.namespace}", "--", *self.daemon_command()], signal.SIGTERM),
                env={**os.environ, **self.daemon_environment()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ).result()
        self._process = process

        def up() -> bool:
            return process.poll() is not None or self.command("version", check=False).returncode == 0

        wait_for(up, START_SECONDS, what="an answer of the engine")
        if process.poll() is not None:
            pytest.fail(f"the engine does not run here:\n{log.read_text(errors='replace')[-3000:]}")

    def daemon_command(self) -> list[str | Path]:
        """Return the words that start the engine, all of whose files lie in its folder."""
        return [
            self._daemon,
            *("--host", self.socket, "--pidfile", self.folder / "pid"),
            *("--data-root", self.folder / "data", "--exec-root", self.folder / "run"),
            *("--exec-opt", "native.cgroupdriver=cgroupfs", "--shutdown-timeout", "5"),
        ]

    def daemon_environment(self) -> dict[str, str]:
        return {}

    def shut_down(self) -> None:
        """End the engine, and with it every container."""
        if self._process is not None:
            end_engine(self._process)
            self._process = None

    def close(self) -> None:
        """End it for good."""
        self.shut_down()
        self._starter.shutdown()

    def inside(self, scenario: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function on the engine's machine: its addresses and ports are those of the namespace."""
        with ThreadPoolExecutor(1, initializer=self._enter) as pool:
            return pool.submit(lambda: asyncio.run(scenario())).result()

    def _enter(self) -> None:
        assert threading.current_thread() is not threading.main_thread()
        libc = ctypes.CDLL(None, use_errno=True)
        with self.namespace.open() as namespace:
            if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def make_image(self, tag: str, page: str, *, changes: Sequence[str] = ()) -> None:
        """Make an image with busybox, whose ``httpd`` serves ``page`` from ``/www``."""
        archive = self.folder / "image.tar"
        write_image(archive, page)
        self.import_image(tag, archive, changes=["ENV PATH=/bin", *changes])
        archive.unlink()


def write_image(archive: Path, page: str) -> None:
    """Write the file system of such an image as a tar archive."""
    with tarfile.open(archive, "w") as tar:
        tar.add(require("busybox"), "bin/busybox")
        for applet in _APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name, content in (("www/index.html", page), ("etc/passwd", "root:x:0:0::/:/bin/sh\n")):
            file = tarfile.TarInfo(name)
            file.size = len(content)
            tar.addfile(file, io.BytesIO(content.encode()))


class NetworkedPodman(NetworkedEngine):
    """Podman behind the same API: no program of its own runs, and none starts containers again."""

    def daemon_command(self) -> list[str | Path]:
        podman: list[str | Path] = [
            self._daemon,
            *("--root", self.folder / "data", "--runroot", self.folder / "run", "--tmpdir", self.folder / "tmp"),
            *("--runtime", "runc", "--cgroup-manager", "cgroupfs", "--storage-driver", "vfs"),
            *("--network-config-dir", self.folder / "networks"),
            *("system", "service", "--time", "0", self.socket),
        ]
        # who has which address is kept in a directory that no option names
        own = 'mount -t tmpfs tmpfs /var/lib/cni && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", own, "sh", *podman]

    def daemon_environment(self) -> dict[str, str]:
        # its usual limits may be more than this machine allows
        settings = self.folder / "containers.conf"
        settings.write_text('[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n')
        return {"CONTAINERS_CONF": str(settings)}


@contextmanager
def networked_engine(kind: type[NetworkedEngine] = NetworkedEngine) -> Iterator[NetworkedEngine]:
    """Run an engine until the block ends; skip the test where the programs or root are missing."""
    daemon, client = require("podman" if kind is NetworkedPodman else "dockerd"), require("docker")
    require("busybox")
    if os.geteuid() != 0:
        pytest.skip("needs root: dockerd has to mount file systems and make namespaces")
    folder = Path(tempfile.mkdtemp(prefix="engine-"))
    held = "ip link set lo up && echo up && exec sleep infinity"
    holder = subprocess.Popen(tied(["unshare", "--net", "sh", "-c", held]), stdout=subprocess.PIPE, text=True)
    engine = kind(client, folder, daemon, holder.pid)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "up\n"
        engine.boot()
        yield engine
        engine.remove_containers()
    finally:
        engine.close()
        unmount_all(folder)
        holder.kill()
        holder.communicate()
        shutil.rmtree(folder)
        shutil.rmtree(engine.memory, ignore_errors=True)
