"""The table of parts: the processes of the demo, in the order in which they start.

| part | is | ready when |
|---|---|---|
| traefik | the real Traefik | ``/ping`` answers |
| serve | the control plane | ``/readyz`` answers: it has reached the remote |
| agent-vps-1, agent-vps-2 | the agents, which run the apps | the control plane says that they are connected |
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from reconciler.commands.demo.folder import Folder
from reconciler.commands.demo.ports import Ports
from reconciler.commands.demo.programs import Programs
from reconciler.commands.demo.reaper import COMMAND_SECONDS, REST_SECONDS

AGENTS: Final = ("vps-1", "vps-2")
POLL_SECONDS: Final = 5.0
"""The remote's hook tells of each push at once; polling only catches what a hook missed."""
ENROL_SECONDS: Final = 60.0
_INHERITED: Final = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "PYTHONPATH")
PYTHON: Final = (sys.executable, "-P")
PROGRAM: Final = (*PYTHON, "-m", "reconciler")


@dataclass(frozen=True, slots=True)
class Part:
    """One process. ``ready`` is asked for ``seconds`` at most; ending may take ``grace`` seconds."""

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    what: str
    """For the person who waits, once it is ready."""
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 30.0
    grace: float = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """A command that comes to an end by itself. ``stdin`` may be secret."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    stdin: str = field(default="", repr=False)


def control_plane(folder: Folder, ports: Ports, programs: Programs) -> Part:
    """``serve``, with the folder's remote and Traefik."""
    command = [
        *(*PROGRAM, "serve", "--repo", str(folder.remote), "--data", str(folder.data)),
        *("--listen", ports.address("control plane"), "--poll", f"{POLL_SECONDS:g}", "--log-format", "text"),
        *("--traefik-file", str(folder.dynamic), "--traefik-api", ports.url("traefik")),
    ]
    variables = {"CLOUDLUNACY_WEBHOOK_SECRET_FILE": str(folder.webhook_secret), "TRAEFIK_BIN": str(programs.traefik)}
    return Part(
        "serve",
        command,
        lambda: _answers(ports.address("control plane"), "/readyz", ca=folder.ca),
        f"control plane at {ports.url('control plane')}",
        environment=environment() | variables,
        grace=15.0,
    )


def agent(folder: Folder, name: str, connected: Callable[[str], bool]) -> Part:
    """An enrolled agent. What it runs ends with it, or with the demo (``reaper``)."""
    reaper = (*PYTHON, "-m", "reconciler.commands.demo.reaper")
    command = [*reaper, *PROGRAM, "agent", "run", "--data", str(folder.agent(name))]
    return Part(
        f"agent-{name}",
        command,
        lambda: connected(name),
        f"agent {name}, and what it runs",
        environment=environment(),
        seconds=90.0,
        grace=COMMAND_SECONDS + 2 * REST_SECONDS,
    )


def enrolment(folder: Folder, ports: Ports, name: str, token: str, ca_sha256: str) -> Job:
    """``agent enrol``, the token on its standard input, the authority pinned."""
    command = [
        *(*PROGRAM, "agent", "enrol", "--server", ports.url("control plane"), "--token-file", "-"),
        *("--name", name, "--data", str(folder.agent(name)), "--timeout", f"{ENROL_SECONDS:g}"),
        *("--ca-sha256", ca_sha256),
    ]
    return Job(f"enrol-{name}", command, environment(), f"{token}\n")


def environment() -> dict[str, str]:
    """Return what Python needs of our own environment, and nothing that could be a secret or a proxy."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ} | {"PYTHONUNBUFFERED": "1"}


def traefik(folder: Folder, ports: Ports, program: Path) -> Part:
    """Traefik in front of everything."""
    command = [str(program), f"--configfile={folder.static}"]
    api = ports.address("traefik")
    return Part("traefik", command, lambda: _answers(api, "/ping"), f"Traefik at {ports.url('web')}")


def _answers(address: str, path: str, *, ca: Path | None = None) -> bool:
    """Ask over TLS where there is a file with roots; one that is not there yet means that nobody answers."""
    try:
        with closing(_connection(address, ca)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def _connection(address: str, ca: Path | None) -> http.client.HTTPConnection:
    if ca is None:
        return http.client.HTTPConnection(address, timeout=2.0)
    return http.client.HTTPSConnection(address, timeout=2.0, context=ssl.create_default_context(cafile=ca))
