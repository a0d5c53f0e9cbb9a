"""From what is wanted and what there is to the next actions of every deployment. PURE.

Each deployment is decided for itself (:mod:`agent.deployments.rollout`); here is what they share: the ports of the
agent, and that nothing is planned for what is not this agent's. A plan without actions means: this is it, for now.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from agent.deployments.observed import Observed
from agent.deployments.rollout import Acknowledged, Decision, Memory, View, decide
from agent.deployments.workload import Key, Workload

NO_MEMORY: Final = Memory()


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports of the agent for instances that come up beside another; both ends belong to it."""

    first: int = 20000
    last: int = 29999

    def free(self, key: Key, port: int, attempt: int, taken: AbstractSet[int]) -> int:
        """Return a port that nobody here holds or may claim; another one at another attempt.

        A program that is not ours may hold it: then starting fails, and the next attempt looks elsewhere. With all
        ports taken it is one of those.
        """
        size = self.last - self.first + 1
        begin = zlib.crc32(f"{key}:{port}:{attempt}".encode()) % size
        candidates = (self.first + (begin + step) % size for step in range(size))
        return next((candidate for candidate in candidates if candidate not in taken), self.first + begin)


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a plan depends on. Times are monotonic seconds."""

    desired: Mapping[Key, Workload]
    observed: Observed
    memories: Mapping[Key, Memory]
    now: float
    acknowledged: Mapping[Key, Acknowledged] = field(default_factory=dict)
    elsewhere: frozenset[Key] = frozenset()
    """Wanted, but of another driver."""
    ports: PortRange = PortRange()
    drain: float = 5.0


def plan(situation: Situation) -> dict[Key, Decision]:
    """Decide for every deployment that is wanted, is there, or is remembered."""
    observed = situation.observed
    there = {instance.key for instance in observed.instances} | observed.networks | observed.volumes
    keys = {*situation.desired, *there, *situation.memories}
    taken = _taken(situation)
    return {key: _decide(situation, key, taken) for key in sorted(keys)}


def _decide(situation: Situation, key: Key, taken: set[int]) -> Decision:
    """Decide for one; a port that it is given joins ``taken``."""

    def other_port(port: int, attempt: int) -> int:
        found = situation.ports.free(key, port, attempt, taken)
        taken.add(found)
        return found

    observed = situation.observed
    return decide(
        View(
            key=key,
            desired=situation.desired.get(key),
            memory=situation.memories.get(key, NO_MEMORY),
            instances=observed.of(key),
            now=situation.now,
            acknowledged=situation.acknowledged.get(key),
            drain=situation.drain,
            other_port=other_port,
            has_network=key in observed.networks,
            has_volumes=key in observed.volumes,
            elsewhere=key in situation.elsewhere,
        )
    )


def _taken(situation: Situation) -> set[int]:
    held = {port for instance in situation.observed.instances for port in instance.ports.values()}
    declared = {mapping.host for workload in situation.desired.values() for mapping in workload.spec.ports}
    return held | declared
