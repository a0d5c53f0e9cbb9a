"""The drill: every key is rotated under load, with 200 connected agents, and nobody is turned away or dropped."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import httpx
import pytest

from schemas.jwk import JwkSet
from tests.support import agent_swarm, documents
from tests.support.fleet import Installation, installation, start_files, web_host
from tests.support.openssl import verify
from tests.support.orphans import tied
from tests.support.traefik import backends
from tests.support.waiting import wait_for

AGENTS: Final = 200
PACE: Final = 1 / 300
"""Three days become a quarter of an hour, ten minutes two seconds."""
ONE_AFTER_THE_OTHER: Final = ("access", "desired", "operator", "intermediate", "root")
HOST: Final = web_host("web")


@dataclass
class Load:
    """Asks again and again, each time over a new connection, and notes what was not answered as it should be."""

    ask: Callable[[], None]
    failures: list[str] = field(default_factory=list)
    answered: int = 0
    _enough: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._enough.wait(0.02):
            try:
                self.ask()
                self.answered += 1
            except (OSError, httpx.HTTPError, AssertionError) as error:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {type(error).__name__} {error}")


@contextlib.contextmanager
def swarm(folder: Path, log: Path) -> Iterator[None]:
    """Run the agents in a process of their own, which writes to ``log`` whatever goes wrong."""
    command = tied([sys.executable, "-m", "tests.support.agent_swarm", str(folder)])
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with log.open("wb") as out, subprocess.Popen(command, stderr=out, env=environment) as process:
        try:
            yield
        finally:
            process.terminate()


def ask_api(one: Installation) -> None:
    """As commands do: roots and credential are those on the disk by then."""
    context = ssl.create_default_context(cafile=str(one.ca))
    answer = httpx.get(f"{one.url}/api/v1/status", headers=one.headers(), verify=context, timeout=20, trust_env=False)
    assert answer.status_code == 200, answer.text


def ask_traefik(one: Installation) -> None:
    """As clients do, who verify the host."""
    assert one.front is not None
    context = ssl.create_default_context(cafile=str(one.ca))
    raw = socket.create_connection(("127.0.0.1", one.front.ports["websecure"]), 20)
    with context.wrap_socket(raw, server_hostname=HOST) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200"), answer[:100]


def presented(one: Installation) -> str:
    """What the control plane presents to new connections, as PEM."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", one.port), 20) as raw, context.wrap_socket(raw) as connection:
        chain: Any = connection._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
        return "".join(certificate.public_bytes() for certificate in chain)


def phase(one: Installation, subject: str) -> str:
    """The phase that a rotation is in; "" once it is over."""
    context = ssl.create_default_context(cafile=str(one.ca))
    answer = httpx.get(f"{one.url}/api/v1/pki/rotations", headers=one.headers(), verify=context, timeout=20)
    return next((str(one["phase"]) for one in answer.json()["rotations"] if one["subject"] == subject), "")


def is_good(one: Installation, roots: str) -> bool:
    """Whether openssl takes what the control plane presents, by these roots."""
    return verify(one.folder, presented(one), roots, at=dt.datetime.now(dt.UTC), address="127.0.0.1").good


def rotate(one: Installation, subject: str) -> dict[str, set[tuple[bool, bool]]]:
    """Rotate and wait for the end. Phase → verdicts by the roots from before, and by those on the disk then."""
    former, seen = one.ca.read_text(), dict[str, set[tuple[bool, bool]]]()
    one.tls.load_verify_locations(one.ca)
    answer = one.post("/pki/rotations", {"subject": subject})
    assert answer.status_code == 201, answer.text

    def over() -> bool:
        before, roots = phase(one, subject), one.ca.read_text()
        verdict = is_good(one, former), is_good(one, roots)
        if phase(one, subject) == before and one.ca.read_text() == roots:
            seen.setdefault(before, set()).add(verdict)
        return before == ""

    wait_for(over, 120, what=f"the rotation of {subject}\n{one.log()[-4000:]}")
    return seen


def events(one: Installation, kind: str) -> int:
    """How many events of a kind there are."""
    found, after = 0, 0
    while True:
        one.tls.load_verify_locations(one.ca)
        page = one.ask("/events", limit=1000, after=after)
        found += sum(event["type"] == kind for event in page["events"])
        if not page["events"]:
            return int(found)
        after = int(page["events"][-1]["id"])


def files(port: int, keys: dict[str, str]) -> dict[str, bytes | str | None]:
    team = documents.team("shop", hostnames=[f"*.app.{documents.DOMAIN}"], agents=["vps-1", "vps-2"])
    backend = [{"agent": "vps-1", "port": port}]
    agents = {
        f"agents/{name}.yaml": documents.agent(name, identity={"thumbprint": thumbprint})
        for name, thumbprint in keys.items()
    }
    route = documents.route("web", HOST, backends=backend, tls={"mode": "terminate"})
    return {**start_files(fleet=documents.fleet(team)), **agents, "routes/shop/web.yaml": route}


def believed(folder: Path) -> set[str]:
    """The roots that agents hold, each once."""
    return {path.read_text() for path in folder.glob("*/certificate/bundle.pem")}


@pytest.mark.timeout(400)  # of which a free machine needs a tenth
def test_everything_is_rotated_under_load_and_nobody_is_dropped(tmp_path: Path) -> None:
    """0 failed requests, 0 dropped agents; old and new roots verify what is presented as the phases say."""
    folder, log = tmp_path / "agents", tmp_path / "agents.log"
    folder.mkdir()
    keys = agent_swarm.make_keys(folder, AGENTS)
    paced = [sys.executable, "-m", "tests.support.paced", str(PACE)]
    with backends("app") as (app,), installation(tmp_path / "one", files(app.port, keys), entry=paced) as one:
        known = JwkSet.model_validate(one.client.get("/.well-known/jwks.json").json())
        agent_swarm.enrol(folder, keys, server=one.url, ca=one.ca.read_text(), jwks=known)
        with swarm(folder, log):
            wait_for(lambda: one.ask("/status")["agentsConnected"] == AGENTS, 120, what="200 agents")
            wait_for(lambda: len(list(folder.glob("*/certificate"))) == AGENTS, 120, what="their certificates")
            with Load(lambda: ask_api(one)) as api, Load(lambda: ask_traefik(one)) as traffic:
                verdicts = {subject: rotate(one, subject) for subject in ONE_AFTER_THE_OTHER}
            assert (api.failures, traffic.failures) == ([], [])
            assert min(api.answered, traffic.answered) > 100
            assert (events(one, "AgentConnected"), events(one, "AgentDisconnected")) == (AGENTS, 0)
            wait_for(lambda: believed(folder) == {one.ca.read_text()}, 60, what="that agents forget the former root")
            assert log.read_text() == ""
    root = verdicts.pop("root")
    assert root["distribute"] == {(True, True)}, root
    assert root[""] == {(False, True)}, root
    assert {new for seen in root.values() for _, new in seen} == {True}, root
    assert all(seen == {(True, True)} for found in verdicts.values() for seen in found.values()), verdicts
