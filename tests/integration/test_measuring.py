"""What a real agent measures reaches API, history, Prometheus and command line, and is unknown once it is gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.api import AgentDetail
from schemas.metrics import MACHINE
from tests.support.fleet import Installation, installation, start_files
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("measuring")
    with installation(folder / "one", start_files("web"), traefik=False) as running:
        running.stop()
        running.options += ["--heartbeat", "1"]
        running.start()
        assert running.enrol("vps-1").returncode == 0
        yield running


def conditions(one: Installation) -> dict[str, tuple[str, str]]:
    detail = AgentDetail.model_validate(one.ask("/agents/vps-1"))
    return {condition.type: (condition.status, condition.reason) for condition in detail.conditions}


def test_what_an_agent_measures_is_seen_everywhere(one: Installation) -> None:
    """From the machine's kernel to the table of a person; then the agent is killed, and nothing is claimed any more."""
    agent = one.run_agent("vps-1")
    one.wait_connected("vps-1")
    wait_for(lambda: "machine_load1" in one.ask("/agents/vps-1")["metrics"], 30, what="numbers")
    assert conditions(one)["Connected"] == ("True", "Connected")
    assert one.ask("/agents/vps-1")["metrics"].keys() <= MACHINE.keys() | {"service_certificates"}

    history = one.ask("/agents/vps-1/metrics", metric="machine_memory_available_bytes")
    points = history["series"]["machine_memory_available_bytes"]
    assert points["unit"] == "bytes"
    assert sum(points["samples"]) >= 1
    assert 0 < points["low"][0] <= points["mean"][0] <= points["high"][0]

    headers = one.headers("read")
    text = one.client.get("/metrics/agents", headers=headers).text
    assert 'cloudlunacy_machine_load1{agent="vps-1"}' in text
    assert "vps-1" not in one.client.get("/metrics").text
    table = one.cli("agent", "list").stdout.splitlines()
    assert table[0].split()[:3] == ["NAME", "STATE", "CONNECTED"]
    assert next(line for line in table if line.startswith("vps-1")).split()[2] == "yes"
    # a share of time is known from the second reading on
    wait_for(
        lambda: "machine_cpu_ratio" in one.cli("agent", "show", "vps-1").stdout, 60, what="a share of the processor"
    )

    agent.kill()
    agent.wait()
    one.wait_connected("vps-1", connected=False)
    wait_for(lambda: conditions(one)["Workloads"] == ("Unknown", "Stale"), 40, what="what it told grows stale")
    wait_for(lambda: conditions(one)["Connected"] == ("False", "Disconnected"), 40, what="the loss is shown")
    assert 'cloudlunacy_machine_load1{agent="vps-1"}' not in one.client.get("/metrics/agents", headers=headers).text


def test_the_history_outlives_a_restart_and_a_damaged_file_ends_nothing(one: Installation) -> None:
    """What was gathered is there after an end in order; a file that is no database is replaced, and said so."""
    agent = one.run_agent("vps-1")
    one.wait_connected("vps-1")

    def samples() -> int:
        answer = one.client.get("/api/v1/agents/vps-1/metrics", headers=one.headers("read"))
        series = answer.json()["series"].get("machine_load1") if answer.is_success else None  # it has just started
        return 0 if series is None else sum(series["samples"])

    wait_for(lambda: samples() > 2, 60, what="a history")
    before = samples()
    one.stop()
    one.restart()
    wait_for(lambda: samples() >= before, 60, what="the history after the restart")
    one.stop()
    Path(one.data / "history.db").write_bytes(b"no database at all" * 999)
    one.start()
    wait_for(lambda: samples() > 0, 60, what="a new history")
    assert list(one.data.glob("history.db.corrupt-*"))
    agent.kill()
    agent.wait()
