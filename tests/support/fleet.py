"""A whole installation on one machine: a bare remote, the real Traefik, ``serve`` in a process group of its own.

Everything lies under one directory, everything is ended by :meth:`Installation.close`. ``push`` writes to the remote
as git does, ``status_wait`` asks the API, ``get`` asks Traefik, ``kill`` is SIGKILL.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from reconciler.app.building import CA_FILE
from reconciler.pki.operator_credential import FILE_NAME, OperatorCredential
from schemas.fleet import Fleet
from tests.support import documents
from tests.support.git_repos import BareRepo
from tests.support.orphans import tied
from tests.support.parts import require
from tests.support.ports import free_port
from tests.support.traefik import Backend, Front, backends
from tests.support.waiting import wait_for

Files = Mapping[str, "bytes | str | None"]
FINAL: Final = ("Converged", "Held", "Failed")
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
POLL: Final = 0.2
"""Seconds between polls of an installation under test."""


def web_host(name: str) -> str:
    """The default host of the route ``name``."""
    return f"{name}.app.{documents.DOMAIN}"


def start_files(*routes: str, port: int = 8081, fleet: bytes | None = None) -> dict[str, bytes | str | None]:
    """A fleet of two agents and one route for each name, all to the same port."""
    files: dict[str, bytes | str | None] = {
        "fleet.yaml": fleet or documents.fleet(),
        "agents/vps-1.yaml": documents.agent("vps-1"),
        "agents/vps-2.yaml": documents.agent("vps-2"),
    }
    return files | {f"routes/shop/{name}.yaml": web(name, port) for name in routes}


def web(name: str, port: int, **spec: Any) -> bytes:
    """A plain HTTP route at its default host."""
    return documents.route(name, web_host(name), backends=[{"agent": "vps-1", "port": port}], **spec)


def command(*arguments: str | Path) -> list[str]:
    """The program, started as a user's shell would."""
    return [sys.executable, "-m", "reconciler", *map(str, arguments)]


def run_cli(
    *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run one command as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": _python_path(), **(env or {})}
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def _python_path() -> str:
    here = str(Path(__file__).parents[2])
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])


class Process(Protocol):
    """A program that was started, as :class:`subprocess.Popen` is one."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def kill(self) -> None: ...

    def terminate(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int: ...


@dataclass
class Installation:
    """What the tests see. ``options`` and ``environment`` are for ``serve`` and may be changed between starts."""

    folder: Path
    repo: BareRepo
    front: Front | None
    options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    entry: Sequence[str] = ()
    """Another program than ``python -m reconciler`` to serve with."""
    repo_url: str = ""
    poll: float = POLL
    address: str = "127.0.0.1"
    """Where the control plane listens."""
    agent_address: str = "127.0.0.1"
    agent_entry: Sequence[str | Path] = ()
    """Words before the command that runs an agent, such as those that enter another machine."""
    agent_options: Sequence[str | Path] = ()
    plain_http: bool = False
    """Without TLS, for tests that speak HTTP over a socket of their own."""
    data: Path = Path()
    """Of ``serve``; below ``folder`` where nothing else is said."""
    process: Process | None = None
    _agents: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.data == Path():
            self.data = self.folder / "data"
        self.log_path = self.folder / "serve.log"
        self.port = free_port()
        self.url = f"{'http' if self.plain_http else 'https'}://{self.address}:{self.port}"
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        """Trusts nobody until the control plane has started, and then its authority alone."""
        self.client = httpx.Client(base_url=self.url, verify=self.tls, trust_env=False, timeout=20)

    # --- the control plane --------------------------------------------------------------------------------------

    def serve_command(self) -> list[str]:
        front = self.front
        traefik = [] if front is None else ["--traefik-file", str(front.file.path), "--traefik-api", front.api_url]
        repo = self.repo_url or str(self.repo.path)
        return [
            *(self.entry or command()),
            *("serve", "--repo", repo, "--data", str(self.data), "--listen", f"{self.address}:{self.port}"),
            *("--poll", str(self.poll), "--push-burst", "1000", "--push-interval", "0.01", "--log-format", "json"),
            *traefik,
            *(("--plain-http",) if self.plain_http else ()),
            *self.options,
        ]

    def start(self, *, wait: bool = True) -> None:
        assert self.process is None or self.process.poll() is not None
        self.process = self.launch(self.serve_command(), self.log_path, self.environment)
        if wait:
            self.wait_until_up()

    def launch(self, words: Sequence[str | Path], log: Path, environment: Mapping[str, str] = NOTHING) -> Process:
        """Start a program in a process group of its own, with what it writes at the end of ``log``."""
        with log.open("ab") as output:
            return subprocess.Popen(
                tied(words),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": _python_path(), **environment},
                start_new_session=True,
                cwd=self.folder,
            )

    def wait_until_up(self) -> None:
        wait_for(self._answers, 60, what=f"serve\n{self.log()[-3000:]}")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()[-3000:]
        with suppress(httpx.HTTPError, FileNotFoundError):
            self.tls.load_verify_locations(self.ca)
            return self.client.get("/healthz").is_success and (self.data / FILE_NAME).exists()
        return False

    @property
    def ca(self) -> Path:
        """The roots of its authority, for whoever connects."""
        return self.data / CA_FILE

    @property
    def ca_sha256(self) -> str:
        """Of the current root; while another takes its place there are two."""
        current, *_ = x509.load_pem_x509_certificates(self.ca.read_bytes())
        return current.fingerprint(hashes.SHA256()).hex()

    def connect(self, timeout: float = 10) -> socket.socket:
        """A connection of one's own, over TLS unless the control plane speaks plain HTTP."""
        raw = socket.create_connection((self.address, self.port), timeout)
        return raw if self.plain_http else self.tls.wrap_socket(raw, server_hostname=self.address)

    def kill(self) -> None:
        """SIGKILL the control plane; git children of it die with their pipes, as after a crash."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()

    def stop(self, seconds: float = 15) -> int:
        """Ask it to end; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(seconds)

    def restart(self) -> None:
        self.kill()
        self.start()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def close(self) -> None:
        for process in (*self._agents, self.process):
            if process is None:
                continue
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.client.close()
        if self.front is not None:
            self.front.close()

    # --- what people do -----------------------------------------------------------------------------------------

    def push(self, files: Files, message: str = "Change", *, parent: str | None = None) -> str:
        """Commit to the remote's branch (on top of ``parent``: a rewrite) and return the revision."""
        return self.repo.commit(files, message=message, parent=parent)

    def cli(self, *arguments: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command that talks to this control plane, with ``--data``."""
        return run_cli(*arguments, "--data", self.data, timeout=timeout)

    def headers(self, *scopes: str) -> dict[str, str]:
        """Credentials of the operator; all scopes when none is named."""
        credential = OperatorCredential.load(self.data)
        return credential.headers(time.time(), frozenset(scopes)) if scopes else credential.headers(time.time())

    def ask(self, path: str, **query: Any) -> Any:
        """GET below /api/v1 as the operator; the answer must be a success."""
        answer = self.client.get(f"/api/v1{path}", params=query, headers=self.headers())
        assert answer.is_success, f"{answer.status_code} {answer.text}"
        return answer.json()

    def post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        return self.client.post(f"/api/v1{path}", json=dict(body), headers=self.headers())

    def status(self, revision: str) -> dict[str, Any] | None:
        """The record of a revision; None where it is not known, or nobody answers."""
        with suppress(httpx.HTTPError):
            answer = self.client.get(f"/api/v1/revisions/{revision}", headers=self.headers())
            if answer.is_success:
                found: dict[str, Any] = answer.json()
                return found
        return None

    def status_wait(self, revision: str, *states: str, deadline: float = 60) -> dict[str, Any]:
        """Wait until the revision is in one of the states (any final one by default) and return its record."""
        last: dict[str, Any] = {}

        def reached() -> bool:
            last.clear()
            last.update(self.status(revision) or {})
            return last.get("state") in (states or FINAL)

        try:
            wait_for(reached, deadline, what=f"{states or FINAL} of {revision[:12]}")
        except AssertionError as error:
            raise AssertionError(f"{error}\nlast: {json.dumps(last, indent=1)}\n{self.log()[-4000:]}") from None
        return last

    def live(self, files: Files, message: str = "Change") -> dict[str, Any]:
        """Push, wait until it is converged, and return the record."""
        found = self.status_wait(self.push(files, message))
        assert found["state"] == "Converged", found
        return found

    def metric(self, name: str) -> float:
        """Return the sum over all labels of a metric."""
        lines = self.client.get("/metrics").text.splitlines()
        values = [float(line.rpartition(" ")[2]) for line in lines if line.split("{")[0].split(" ")[0] == name]
        return sum(values)

    def polls(self) -> int:
        return int(self.metric("cloudlunacy_polls_total"))

    # --- what clients see ---------------------------------------------------------------------------------------

    def get(self, name: str, path: str = "/") -> httpx.Response:
        """Ask Traefik for the default host of a route."""
        assert self.front is not None
        return self.front.get(web_host(name), path)

    def answers(self, names: Iterable[str]) -> dict[str, int]:
        """The status that Traefik gives for each route."""
        return {name: self.get(name).status_code for name in names}

    @property
    def published(self) -> Path:
        assert self.front is not None
        return self.front.file.path

    # --- agents -------------------------------------------------------------------------------------------------

    def token(self, name: str) -> str:
        answer = self.post("/enrolment-tokens", {"agent": name, "ttl": "15m"})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    def enrol(self, name: str, *more: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
        """Enrol with the real command."""
        about: list[str | Path] = ["--server", self.url, "--token", token or self.token(name), "--name", name]
        about += ["--data", self.agent_data(name), "--address", self.agent_address, "--timeout", "30", *more]
        return run_cli("agent", "enrol", *about, *([] if self.plain_http else ["--ca-sha256", self.ca_sha256]))

    def agent_data(self, name: str) -> Path:
        return self.folder / f"agent-{name}"

    def agent_log(self, name: str) -> str:
        return (self.folder / f"agent-{name}.log").read_text(errors="replace")

    def run_agent(self, name: str) -> Process:
        """Start the real agent process."""
        about = ("--data", self.agent_data(name), "--log-level", "DEBUG", *self.agent_options)
        words = [*self.agent_entry, *command("agent", "run", *about)]
        process = self.launch(words, self.folder / f"agent-{name}.log")
        self._agents.append(process)
        return process

    def agent(self, name: str) -> dict[str, Any] | None:
        """What the API says of an agent."""
        found: dict[str, Any] | None = next(
            (one for one in self.ask("/agents", limit=1000)["agents"] if one["name"] == name), None
        )
        return found

    def wait_connected(self, name: str, *, connected: bool = True, deadline: float = 60) -> None:
        def reached() -> bool:
            found = self.agent(name)
            return (found is not None and found["connected"]) is connected

        wait_for(reached, deadline, what=f"{name} connected={connected}\n{self.log()[-2000:]}")


@contextmanager
def installation(
    folder: Path,
    files: Files | None = None,
    *,
    traefik: bool = True,
    start: bool = True,
    fleet: Fleet | None = None,
    kind: type[Installation] = Installation,
    **more: Any,
) -> Iterator[Installation]:
    """Run one below ``folder``; with ``files`` pushed first, and waited for unless it is not started."""
    require("git")
    folder.mkdir(exist_ok=True)
    repo = BareRepo.create(folder / "remote.git")
    example = fleet or Fleet.model_validate(json.loads(documents.fleet()))
    front = Front(folder / "front", example) if traefik else None
    one = kind(folder, repo, front, **more)
    try:
        revision = one.push(files, "Start") if files is not None else None
        if start:
            one.start()
            if revision is not None:
                found = one.status_wait(revision)
                assert found["state"] == "Converged", found
        yield one
    finally:
        one.close()


@contextmanager
def served(folder: Path, *routes: str, **more: Any) -> Iterator[tuple[Installation, Backend]]:
    """An installation with routes that lead to one backend."""
    with backends("app") as (backend,), installation(folder, start_files(*routes, port=backend.port), **more) as one:
        yield one, backend
