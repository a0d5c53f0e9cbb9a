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

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

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
    switching: bool = True
    """Fronts follow ports that no file declares."""
    released: frozenset[Key] = frozenset()
    """Their data may go once they are not wanted any more."""


def plan(situation: Situation) -> dict[Key, Decision]:
    """Decide for every deployment that is wanted, is there, or is remembered."""
    observed = situation.observed
    there = {instance.key for instance in observed.instances} | observed.networks | observed.volumes
    keys = {*situation.desired, *there, *situation.memories}
    claims = _claims(situation)
    return {key: _decide(situation, key, claims) for key in sorted(keys)}


def _decide(situation: Situation, key: Key, claims: dict[int, set[Key]]) -> Decision:
    """Decide for one; a port that it is given joins ``claims``."""

    def other_port(port: int, attempt: int) -> int:
        found = situation.ports.free(key, port, attempt, claims.keys())
        claims.setdefault(found, set()).add(key)
        return found

    def may_return(port: int) -> bool:
        return situation.switching and port in situation.ports and claims.get(port, set()) <= {key}

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
            may_return=may_return,
            has_network=key in observed.networks,
            has_volumes=key in observed.volumes,
            elsewhere=key in situation.elsewhere,
            released=key in situation.released,
        )
    )


def _claims(situation: Situation) -> dict[int, set[Key]]:
    """Return who has a port of the agent, had it last, or has it by its file."""
    found: dict[int, set[Key]] = {}
    for instance in situation.observed.instances:
        for port in instance.ports.values():
            found.setdefault(port, set()).add(instance.key)
    for key, memory in situation.memories.items():
        for _, port in memory.ports:
            found.setdefault(port, set()).add(key)
    for workload in situation.desired.values():
        for mapping in workload.spec.ports:
            found.setdefault(mapping.host, set()).add(workload.key)
    return found
