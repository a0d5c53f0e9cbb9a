"""What goes with heartbeats about the machine: names, rates, and what a reading costs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.machine import Machine
from agent.readings import Reading, Size, counts, named
from schemas.metrics import MACHINE
from schemas.session import Heartbeat
from tests.support.waiting import eventually

READING = Reading(
    at=100.0, cores=2, cpu_busy=50.0, cpu_total=200.0, load=(0.5, 0.4, 0.3), memory=(8000, 6000), swap=(1000, 10),
    disk=Size(5000, 4000), engine_disk=None, received=10_000, sent=500, uptime=3600.0, agent_memory=100, agent_cpu=1.5,
    open_files=12,
)  # fmt: skip


def test_rates_compare_with_the_reading_before() -> None:
    """Ten seconds, five busy of twenty seconds of two processors, and a thousand bytes."""
    later = READING._replace(at=110.0, cpu_busy=55.0, cpu_total=220.0, received=11_000)
    found = named(later, READING)
    assert found["machine_cpu_ratio"] == 0.25
    assert found["machine_network_received_bytes_rate"] == 100.0
    assert found["machine_network_sent_bytes_rate"] == 0.0


@pytest.mark.parametrize(
    "later",
    [{"at": 110.0, "received": 9, "cpu_busy": 1.0}, {"at": 100.0}, {"at": 90.0, "cpu_total": 100.0, "received": 3}],
    ids=["counters restarted", "no time", "back"],
)
def test_a_counter_that_goes_back_makes_no_rate(later: dict[str, Any]) -> None:
    """After a restart of a counter nothing is said, instead of something absurd."""
    found = named(READING._replace(**later), READING)
    assert "machine_cpu_ratio" not in found
    assert "machine_network_received_bytes_rate" not in found


def test_what_cannot_be_read_is_left_out() -> None:
    """A missing engine has no disk, and a first reading no rates."""
    found = named(READING._replace(open_files=None), None)
    assert not {"machine_engine_disk_free_bytes", "agent_open_files", "machine_cpu_ratio"} & found.keys()
    assert found["machine_disk_free_bytes"] == 4000.0


def test_only_interfaces_to_the_outside_count() -> None:
    """Bridges and virtual pairs carry what the machine's own interface carries too."""
    names = ["lo", "eth0", "ens3", "wlan0", "veth12ab", "br-cl0", "docker0", "cl-shop", "enp1s0"]
    assert [one for one in names if counts(one)] == ["eth0", "ens3", "wlan0", "enp1s0"]


def test_a_real_reading_fits_into_a_heartbeat(tmp_path: Path) -> None:
    """Each name is a documented one, and the heartbeat takes all of them beside those of certificates."""
    machine = Machine(tmp_path, tmp_path)
    assert machine.metrics() == {}
    machine.look()
    deadline = time.monotonic() + 5  # the kernel counts a processor's time in hundredths of a second
    while "machine_cpu_ratio" not in machine.metrics() and time.monotonic() < deadline:
        sum(range(100_000))
        machine.look()
    found = machine.metrics()
    assert found.keys() == MACHINE.keys()
    assert 0 <= found["machine_cpu_ratio"] <= 1
    assert found["machine_memory_total_bytes"] == psutil.virtual_memory().total
    others = {f"service_certificates_{number}": 1.0 for number in range(20)}
    assert Heartbeat(sequence=1, metrics=found | others).metrics["agent_memory_bytes"] > 0


def test_a_reading_takes_less_than_a_millisecond(tmp_path: Path) -> None:
    """And what a heartbeat waits for is a copy of a dictionary."""
    machine = Machine(tmp_path, tmp_path)
    times = []
    for _ in range(50):
        began = time.thread_time()
        machine.look()
        times.append(time.thread_time() - began)
    assert sorted(times)[25] < 0.001
    began = time.thread_time()
    for _ in range(1000):
        machine.metrics()
    assert time.thread_time() - began < 0.1


def test_a_disk_that_hangs_shows_as_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read last goes on being told, with how old it is."""
    now = [100.0]
    machine = Machine(tmp_path, monotonic=lambda: now[0])
    machine.look()
    now[0] += 60
    assert machine.metrics()["machine_reading_age_seconds"] == 60.0


def test_a_failed_reading_is_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the kernel that cannot be read costs one reading."""
    machine, tries = Machine(tmp_path, seconds=0.0), [0]
    look = machine.look

    def sometimes() -> None:
        tries[0] += 1
        if tries[0] < 3:
            raise psutil.AccessDenied
        look()

    monkeypatch.setattr(machine, "look", sometimes)

    async def scenario() -> None:
        task = asyncio.create_task(machine.run())
        await eventually(lambda: bool(machine.metrics()))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
