"""Names and units of what agents measure. The same names go with heartbeats, into the history and to Prometheus.

docs/metrics.md says what each of them means. A name is never given another meaning; what is not known is left out.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Unit = Literal["ratio", "bytes", "bytes/s", "seconds", "cores", "count"]


class Measure(NamedTuple):
    unit: Unit
    text: str
    """What it is, in a few words."""
    kept: bool = False
    """The control plane keeps its history."""


MACHINE: Final[dict[str, Measure]] = {
    "machine_cpu_cores": Measure("count", "logical processors"),
    "machine_cpu_ratio": Measure("ratio", "part of the processors' time that was used since the reading before", True),
    "machine_load1": Measure("count", "load average of one minute", True),
    "machine_load5": Measure("count", "load average of five minutes"),
    "machine_load15": Measure("count", "load average of fifteen minutes"),
    "machine_memory_total_bytes": Measure("bytes", "memory"),
    "machine_memory_available_bytes": Measure("bytes", "memory that programs can have without swapping", True),
    "machine_swap_total_bytes": Measure("bytes", "swap space"),
    "machine_swap_used_bytes": Measure("bytes", "swap space in use", True),
    "machine_disk_total_bytes": Measure("bytes", "file system of the agent's data directory"),
    "machine_disk_free_bytes": Measure("bytes", "what the agent may still write there", True),
    "machine_engine_disk_total_bytes": Measure("bytes", "file system of the container engine"),
    "machine_engine_disk_free_bytes": Measure("bytes", "what may still be written there", True),
    "machine_network_received_bytes": Measure("bytes", "received since the machine started, without loopback"),
    "machine_network_sent_bytes": Measure("bytes", "sent since the machine started, without loopback"),
    "machine_network_received_bytes_rate": Measure("bytes/s", "received since the reading before", True),
    "machine_network_sent_bytes_rate": Measure("bytes/s", "sent since the reading before", True),
    "machine_uptime_seconds": Measure("seconds", "since the machine started"),
    "machine_reading_age_seconds": Measure(
        "seconds", "how old these numbers are; more than 30 means a disk that hangs"
    ),
    "agent_memory_bytes": Measure("bytes", "memory of the agent's process", True),
    "agent_cpu_seconds": Measure("seconds", "processor time of the agent's process"),
    "agent_open_files": Measure("count", "open files of the agent's process", True),
}
"""Of machine and agent."""

DEPLOYMENT: Final[dict[str, Measure]] = {
    "cpu_cores": Measure("cores", "processors that it kept busy since the message before", True),
    "memory_bytes": Measure("bytes", "memory that it uses", True),
    "pids": Measure("count", "processes and threads", True),
    "restarts": Measure("count", "restarts of the instance that serves", True),
}
"""Of one deployment on one agent."""

KEPT_OF_MACHINES: Final = tuple(name for name, measure in MACHINE.items() if measure.kept)
KEPT_OF_DEPLOYMENTS: Final = tuple(name for name, measure in DEPLOYMENT.items() if measure.kept)
