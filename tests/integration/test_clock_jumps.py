"""The control plane's clock jumps by two days, there and back (row 22): nobody is dropped, expired or revoked by it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from reconciler.pki.operator_credential import OperatorCredential
from schemas.certificates_api import CRL_PATH
from tests.support.acme_site import another_clock
from tests.support.fleet import Installation, installation, start_files, web
from tests.support.waiting import wait_for

DAYS = 2 * 86_400.0


@dataclass
class Jumping(Installation):
    """An installation whose clock is ``shift`` seconds off; the operator's clock goes with it, agents' do not."""

    shift: float = 0.0

    def jump(self, seconds: float) -> None:
        (self.folder / "clock").write_text(f"{seconds:+.0f}\n")
        self.shift = seconds

    def headers(self, *scopes: str) -> dict[str, str]:
        credential = OperatorCredential.load(self.data)
        return credential.headers(time.time() + self.shift, *([frozenset(scopes)] if scopes else []))

    def restart_agent(self, name: str) -> None:
        running = self._agents.pop(0)
        running.kill()
        running.wait()
        self.wait_connected(name, connected=False)
        self.run_agent(name)
        self.wait_connected(name)

    def connections(self) -> dict[str, bool]:
        return {str(one["name"]): bool(one["connected"]) for one in self.ask("/agents", limit=10)["agents"]}


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Jumping]:
    """Two agents are connected."""
    clock = tmp_path / "one" / "clock"
    environment = another_clock(FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_NO_CACHE="1")
    with installation(tmp_path / "one", start_files(), traefik=False, start=False) as made:
        running = Jumping(made.folder, made.repo, None, environment=environment)
        try:
            running.jump(0)
            running.start()
            running.status_wait(running.repo.tip() or "")
            for name in ("vps-1", "vps-2"):
                done = running.enrol(name)
                assert done.returncode == 0, done.stderr
                running.run_agent(name)
                running.wait_connected(name)
            yield running
        finally:
            running.close()


def gone(one: Jumping) -> list[str]:
    """What the timeline tells of agents that had to go."""
    return [
        event["message"] for event in one.ask("/events", limit=1000)["events"]
        if event["type"] in ("CertificateRevoked", "AgentRevoked", "AgentDisconnected", "TokenExpired")
    ]  # fmt: skip


@pytest.mark.parametrize("shift", [DAYS, -DAYS], ids=["forward", "back"])
def test_a_jump_there_and_back_expires_and_drops_nobody(one: Jumping, shift: float) -> None:
    """Sessions stand, commits go live, an agent that starts meanwhile comes in, and afterwards all is as before."""
    ci = one.post("/tokens", {"kind": "ci", "scopes": ["read"], "expires": "30d"}).json()["token"]
    one.jump(shift)
    wait_for(lambda: one.client.get("/api/v1/status", headers=one.headers()).is_success, 10, what="the jump")
    assert one.connections() == {"vps-1": True, "vps-2": True}
    one.live({"routes/shop/during.yaml": web("during", 8081)})
    one.restart_agent("vps-1")
    assert one.client.get("/api/v1/status", headers={"Authorization": f"Bearer {ci}"}).is_success
    one.jump(0)
    wait_for(lambda: one.client.get("/api/v1/status", headers=one.headers()).is_success, 10, what="the way back")
    one.live({"routes/shop/after.yaml": web("after", 8081)})
    assert one.connections() == {"vps-1": True, "vps-2": True}
    assert gone(one) == ["ConnectionLost"], "but for the agent that was ended here"
    assert list(x509.load_der_x509_crl(one.client.get(CRL_PATH).content)) == []
    assert "Traceback" not in one.log()
