"""What one reading of a machine becomes: the numbers of :data:`schemas.metrics.MACHINE`. PURE.

Counters become rates by comparing with the reading before. One that went backwards (a restart, an interface that is
gone) says nothing, so that no rate is negative or absurd.
"""

from __future__ import annotations

from typing import Final, NamedTuple

INSIDE: Final = ("lo", "veth", "br-", "docker", "podman", "cl-", "cni", "virbr", "tap", "tun", "wg", "dummy", "ifb")
"""Beginnings of names of interfaces that carry what another one carries too, or what never leaves the machine."""


class Size(NamedTuple):
    """Of a file system, in bytes."""

    total: int
    free: int


class Reading(NamedTuple):
    """Raw numbers of one moment. None: it could not be read."""

    at: float
    """Monotonic, in seconds."""
    cores: int
    cpu_busy: float
    """Seconds of all processors together, as is ``cpu_total``."""
    cpu_total: float
    load: tuple[float, float, float]
    memory: tuple[int, int]
    """Total and available, bytes."""
    swap: tuple[int, int]
    """Total and used, bytes."""
    disk: Size | None
    engine_disk: Size | None
    received: int
    sent: int
    uptime: float
    agent_memory: int
    agent_cpu: float
    open_files: int | None


def counts(interface: str) -> bool:
    """Whether its traffic is the machine's with the outside."""
    return not interface.startswith(INSIDE)


def named(now: Reading, before: Reading | None) -> dict[str, float]:
    """Return the metrics by name; what cannot be told is left out."""
    found: dict[str, float | None] = {
        "machine_cpu_cores": now.cores,
        "machine_cpu_ratio": _ratio(now, before),
        "machine_load1": now.load[0],
        "machine_load5": now.load[1],
        "machine_load15": now.load[2],
        "machine_memory_total_bytes": now.memory[0],
        "machine_memory_available_bytes": now.memory[1],
        "machine_swap_total_bytes": now.swap[0],
        "machine_swap_used_bytes": now.swap[1],
        "machine_disk_total_bytes": now.disk and now.disk.total,
        "machine_disk_free_bytes": now.disk and now.disk.free,
        "machine_engine_disk_total_bytes": now.engine_disk and now.engine_disk.total,
        "machine_engine_disk_free_bytes": now.engine_disk and now.engine_disk.free,
        "machine_network_received_bytes": now.received,
        "machine_network_sent_bytes": now.sent,
        "machine_network_received_bytes_rate": _rate(now, before, "received"),
        "machine_network_sent_bytes_rate": _rate(now, before, "sent"),
        "machine_uptime_seconds": now.uptime,
        "agent_memory_bytes": now.agent_memory,
        "agent_cpu_seconds": now.agent_cpu,
        "agent_open_files": now.open_files,
    }
    return {name: round(float(value), 4) for name, value in found.items() if value is not None}


def _ratio(now: Reading, before: Reading | None) -> float | None:
    if before is None or now.cpu_total <= before.cpu_total or now.cpu_busy < before.cpu_busy:
        return None
    return min(1.0, (now.cpu_busy - before.cpu_busy) / (now.cpu_total - before.cpu_total))


def _rate(now: Reading, before: Reading | None, counter: str) -> float | None:
    if before is None or now.at <= before.at:
        return None
    grown = float(getattr(now, counter) - getattr(before, counter))
    return grown / (now.at - before.at) if grown >= 0 else None
