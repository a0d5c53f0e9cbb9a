"""What a driver can be asked to do. PURE. Each is harmless when it is done already, so that it may be asked again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from agent.deployments.observed import Instance
from agent.deployments.workload import Key, Slot, Workload


class Directory(NamedTuple):
    """A directory of the agent's own that an instance sees at ``target``. What is written in git never makes one."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Create:
    """Fetch what it is made of and set an instance up, without starting it. ``ports`` as in ``Instance``."""

    workload: Workload
    slot: Slot
    ports: Mapping[int, int]
    directories: tuple[Directory, ...] = ()

    @property
    def key(self) -> Key:
        return self.workload.key


@dataclass(frozen=True, slots=True)
class _OnInstance:
    instance: Instance

    @property
    def key(self) -> Key:
        return self.instance.key


class Start(_OnInstance):
    """Start what was created or has ended."""


class Keep(_OnInstance):
    """From now on the engine starts it again by itself: it is good."""


class Stop(_OnInstance):
    """Ask it to end, and end it after its grace."""


class Remove(_OnInstance):
    """Remove an instance, also one that runs. Volumes stay."""


@dataclass(frozen=True, slots=True)
class RemoveNetwork:
    key: Key


@dataclass(frozen=True, slots=True)
class RemoveVolumes:
    """Delete the data of a deployment."""

    key: Key


Action = Create | Start | Keep | Stop | Remove | RemoveNetwork | RemoveVolumes
