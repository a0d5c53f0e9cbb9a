"""What there is: instances, networks and volumes of this agent, as a driver sees them. PURE.

What belongs to nobody, or to another agent on the same machine, is never part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from agent.deployments.health import UNKNOWN, Health
from agent.deployments.workload import Key, Slot

State = Literal["created", "running", "restarting", "paused", "exited"]


@dataclass(frozen=True, slots=True)
class Instance:
    """One container or program. ``ports``: port of the workload → port of the agent."""

    id: str
    key: Key
    digest: str
    slot: Slot
    state: State
    kept: bool = False
    """It was good once, and the engine starts it again by itself."""
    exit_code: int | None = None
    killed: bool = False
    """It ended by a signal from outside, as when the engine ends; not because memory ran out."""
    ran_seconds: float | None = None
    """Of an exited one: how long it ran."""
    started: str = ""
    """Another text after each start."""
    restarts: int = 0
    """By the engine."""
    ports: Mapping[int, int] = field(default_factory=dict)
    address: str = ""
    """Where the workload's own ports are reached from this machine; empty while it does not run."""
    on_host: bool = False
    """It has no network of its own, so its ports are those of the agent."""
    last_lines: str = ""
    """Of an exited one: what it wrote at the end."""
    health: Health = UNKNOWN

    @property
    def up(self) -> bool:
        """It may hold ports, and it may be asked."""
        return self.state in ("running", "restarting", "paused")

    def reached_at(self, port: int) -> int:
        """Return where, at ``address``, a port of the workload is."""
        return self.ports.get(port, port) if self.on_host else port


@dataclass(frozen=True, slots=True)
class Observed:
    instances: tuple[Instance, ...] = ()
    networks: frozenset[Key] = frozenset()
    volumes: frozenset[Key] = frozenset()
    """Deployments that have at least one volume."""

    def of(self, key: Key) -> tuple[Instance, ...]:
        return tuple(instance for instance in self.instances if instance.key == key)
