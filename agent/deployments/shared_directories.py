"""Directories of the server that its owner shares with deployments of some teams, by names. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from agent.deployments.actions import Directory
from agent.deployments.driver import DriverError
from agent.deployments.workload import Workload


@dataclass(frozen=True, slots=True)
class SharedDirectory:
    path: str
    teams: frozenset[str]
    read_only: bool = False


Shared = Mapping[str, SharedDirectory]
NOTHING_SHARED: Final[Shared] = MappingProxyType({})


def shared_with(workload: Workload, shared: Shared) -> tuple[Directory, ...]:
    """Return what a workload gets of it.

    Raises:
        DriverError: the owner shares nothing by that name with that team.
    """
    found = []
    for volume in workload.spec.volumes:
        if volume.shared is None:
            continue
        one = shared.get(volume.shared)
        if one is None or workload.key.team not in one.teams:
            # the same words for both: who may not have it need not learn that it is there
            text = f'This server shares no directory "{volume.shared}" with team {workload.key.team} (agent.toml).'
            raise DriverError("NotGranted", text, retryable=True)
        found.append(Directory(one.path, volume.path, read_only=volume.read_only or one.read_only))
    return tuple(found)
