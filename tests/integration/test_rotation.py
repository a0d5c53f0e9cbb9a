"""Keys give way to others in a running control plane, with real agents that follow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.credentials import AgentFile
from tests.support.fleet import Installation, installation, start_files
from tests.support.waiting import wait_for

ROTATIONS = "/pki/rotations"


def begin(one: Installation, subject: str, **more: Any) -> dict[str, Any]:
    answer = one.post(ROTATIONS, {"subject": subject, **more})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def under_way(one: Installation) -> dict[str, dict[str, Any]]:
    one.tls.load_verify_locations(one.ca)
    return {found["subject"]: found for found in one.ask(ROTATIONS)["rotations"]}


def finished(one: Installation, subject: str, deadline: float = 60) -> None:
    wait_for(lambda: subject not in under_way(one), deadline, what=f"end of {subject}\n{one.log()[-3000:]}")


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Installation]:
    files = start_files("web")
    del files["agents/vps-1.yaml"], files["agents/vps-2.yaml"], files["routes/shop/web.yaml"]
    with installation(tmp_path, files, traefik=False) as running:
        yield running


def test_an_emergency_replaces_everything_and_the_agent_stays(one: Installation) -> None:
    """Root and keys are rotated as tainted: its one connection stands, and it believes the new ones alone."""
    assert one.enrol("vps-1").returncode == 0
    one.run_agent("vps-1")
    one.wait_connected("vps-1")
    before = AgentFile.load(one.agent_data("vps-1"))
    for subject in ("root", "desired", "access", "operator"):
        begin(one, subject, tainted=True)
        finished(one, subject)

    wait_for(lambda: AgentFile.load(one.agent_data("vps-1")).ca == one.ca.read_text(), 20, what="trust")
    after = AgentFile.load(one.agent_data("vps-1"))
    assert before.ca != after.ca
    assert not {key.kid for key in before.jwks.keys} & {key.kid for key in after.jwks.keys}
    connected = [event for event in one.ask("/events", limit=1000)["events"] if event["type"] == "AgentConnected"]
    assert len(connected) == 1
    one.restart()
    one.wait_connected("vps-1")
