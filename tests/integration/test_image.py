"""The image of the Dockerfile, built and run on a real Docker Engine as docs/container.md says."""

from __future__ import annotations

import json
import os
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import pytest

from schemas.fleet import Fleet
from tests.support import documents
from tests.support.base_image import import_debian_with_python
from tests.support.engine import Container, DockerEngine
from tests.support.fleet import start_files, web_host
from tests.support.git_repos import BareRepo
from tests.support.git_server import git_server
from tests.support.ports import free_port
from tests.support.traefik import Front, backends, front
from tests.support.waiting import wait_for

ROOT: Final = Path(__file__).parents[2]
BASE: Final = "debian-python"
IMAGE: Final = "cloudlunacy"
USER: Final = 10001
MOST_BYTES: Final = 480_000_000
"""Added to the base; 185 MB of it are Traefik, 70 MB git and what it needs."""
HARDENED: Final = ("--network", "host", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
STOP_SECONDS: Final = 9.0
"""docker stop kills after ten."""
TOOLS: Final = "git --version && ssh -V && gpg --version && traefik version && cloudlunacy --version"
STRAYS: Final = r"""
find / -xdev \( -name .git -o -path "*cloudlunacy/tests" -o -name "requirements*.lock" \) -print
find /opt/cloudlunacy \( -name pip -o -name setuptools -o -name hatchling \) -print
find / -xdev \( -name .git -o -path "*cloudlunacy/tests" -o -name "requirements*.lock" \) -print
command -v gcc make hatchling || true
"""


class _Plane(NamedTuple):
    container: Container
    url: str


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_the_image_serves_a_fleet_and_runs_an_agent(engine: DockerEngine, tmp_path: Path) -> None:
    """As nobody on a read-only disk it serves, is healthy, lets an agent in, ends in time and finds its state again."""
    _build(engine, tmp_path)
    _holds_no_more_than_it_needs(engine)
    with _a_fleet(tmp_path) as (traefik, repository):
        plane = _serve(engine, traefik, repository)
        _wait_until_up(plane, traefik)
        began = _status(plane)
        agent = _an_agent(engine, plane)
        wait_for(lambda: "applied" in str(_status(plane, began["revision"])["agents"]["vps-1"]), 10, what="its report")
        enrolled = _status(plane, "--wait")
        assert (enrolled["state"], enrolled["commit"]["subject"]) == ("Converged", "Enrol agent vps-1")
        for container in (agent, plane.container):
            _ends_in_time(container)
        plane.container.start_again()
        _wait_until_up(plane, traefik)
        assert _status(plane)["revision"] == enrolled["revision"]


def _build(engine: DockerEngine, folder: Path) -> None:
    """Build on Debian's Python of the suite that the Dockerfile names."""
    named = re.search(r"^ARG BASE=python:\S+-slim-([a-z]+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert named is not None, "the Dockerfile names no python:…-slim-<suite>"
    import_debian_with_python(engine, BASE, named[1], folder)
    engine.build(IMAGE, ROOT, arguments={"BASE": BASE})


def _holds_no_more_than_it_needs(engine: DockerEngine) -> None:
    """Nobody's user, no build tools, nothing of the checkout but the program, and not too much of all."""
    assert engine.inspect(IMAGE)["Config"]["User"] == f"{USER}:{USER}"
    assert engine.inspect(IMAGE)["Size"] - engine.inspect(BASE)["Size"] < MOST_BYTES
    shell = ("--network", "none", "--entrypoint", "sh")
    assert engine.run(IMAGE, "-c", STRAYS, options=(*shell, "--user", "0")).stdout == ""
    engine.run(IMAGE, "-c", TOOLS, options=(*shell, "--read-only"))


@contextmanager
def _a_fleet(folder: Path) -> Iterator[tuple[Front, str]]:
    """The machine's Traefik, whose directories belong to the image's user, and a remote over HTTP with one route."""
    spec = Fleet.model_validate(json.loads(documents.fleet()))
    repository = BareRepo.create(folder / "fleet.git")
    with (
        backends("app") as (app,),
        front(folder / "traefik", fleet=spec) as traefik,
        git_server(folder) as server,
    ):
        for directory in (traefik.directory.parent, traefik.directory):
            directory.chmod(0o750)
            os.chown(directory, USER, USER)
        repository.commit(start_files("web", port=app.port))
        yield traefik, server.url_of(repository.path)


def _serve(engine: DockerEngine, traefik: Front, repository: str) -> _Plane:
    place = f"127.0.0.1:{free_port()}"
    above = traefik.directory.parent
    mounts = ("--volume", "cloudlunacy:/data", "--volume", f"{above}:{above}")
    health = ("--env", f"HEALTH_URL=https://{place}/healthz", "--health-interval", "1s")
    container = engine.start(
        IMAGE,
        *("serve", "--repo", repository, "--branch", "main", "--data", "/data", "--listen", place, "--poll", "1"),
        *("--traefik-file", str(traefik.file.path), "--traefik-api", traefik.api_url),
        options=(*HARDENED, *mounts, *health),
    )
    return _Plane(container, f"https://{place}")


def _wait_until_up(plane: _Plane, traefik: Front) -> None:
    """Ready, healthy, sound in the eyes of doctor, and the route of the commit answers."""

    def ready() -> bool:
        assert plane.container.state["Running"], plane.container.logs()
        with suppress(httpx.HTTPError, ssl.SSLError):
            trusted = ssl.create_default_context(cadata=plane.container.exec("cat", "/data/ca.pem", check=False).stdout)
            return httpx.get(f"{plane.url}/readyz", verify=trusted, trust_env=False).status_code == 200
        return False

    wait_for(ready, 90, what="/readyz")
    wait_for(lambda: traefik.get(web_host("web")).status_code == 200, 30, what=f"the route\n{plane.container.logs()}")
    wait_for(lambda: plane.container.state["Health"]["Status"] == "healthy", 90, what="HEALTHCHECK")
    _cli(plane, "doctor", "--traefik-file", str(traefik.file.path), "--traefik-api", traefik.api_url)


def _an_agent(engine: DockerEngine, plane: _Plane) -> Container:
    """Enrol and run one with the image, on a volume of its own."""
    token = _cli(plane, "token", "create", "--agent", "vps-1")
    options = (*HARDENED, "--volume", "agent:/data")
    root = json.loads(_cli(plane, "pki", "status", "--format", "json"))["roots"][0]
    server = ("--server", plane.url, "--ca-sha256", root["sha256"])
    enrolment = ("enrol", *server, "--token-file", "-", "--name", "vps-1", "--data", "/data")
    engine.run(IMAGE, "agent", *enrolment, options=options, stdin=token)
    agent = engine.start(IMAGE, "agent", "run", "--data", "/data", options=("--no-healthcheck", *options))
    wait_for(lambda: "applied" in agent.logs(), 30, what="the agent's first document")
    return agent


def _status(plane: _Plane, *which: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(_cli(plane, "status", *which, "--format", "json"))
    return record


def _cli(plane: _Plane, *arguments: str) -> str:
    """Run a command in the control plane's container."""
    return plane.container.exec("cloudlunacy", *arguments, "--data", "/data").stdout


def _ends_in_time(container: Container) -> None:
    began = time.monotonic()
    assert container.stop() == 0, container.logs()
    assert time.monotonic() - began < STOP_SECONDS
