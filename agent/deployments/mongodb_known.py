"""What is known of a database while the agent runs; what outlives it is in :mod:`agent.deployments.mongodb_files`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.deployments.mongodb_admin import Standing
from agent.deployments.observed import Instance
from agent.deployments.workload import Workload
from schemas.deployment import MongoDB


class Said(NamedTuple):
    reason: str
    message: str


@dataclass(slots=True)
class Database:
    """What is known of one that is wanted."""

    workload: Workload
    made: Workload | None = None
    """What the driver was told to run."""
    refused: Said | None = None
    instance: Instance | None = None
    """The one that runs, if one does."""
    greeted: str = ""
    """The start of an instance that has the agent's user, and no lock of a backup that was cut off."""
    shown: str = ""
    """Fingerprint of the certificate that mongod was told of."""
    users: str = ""
    """The start, and what was wanted, when users were as wanted."""
    trouble: Said | None = None
    backup_trouble: Said | None = None
    standing: Standing | None = None
    asked_at: float = float("-inf")
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while somebody works in it: tending, or a backup with its lock."""
    again: bool = False
    """Somebody wanted to look after it meanwhile."""

    @property
    def mongodb(self) -> MongoDB:
        assert self.workload.spec.mongodb is not None, "the schema asks for it"
        return self.workload.spec.mongodb

    @property
    def ready(self) -> bool:
        """It runs, and the agent has been in it since it was started."""
        return self.instance is not None and self.greeted == self.start

    @property
    def start(self) -> str:
        return "" if self.instance is None else start_of(self.instance)


def start_of(instance: Instance) -> str:
    """Return what is another text after each start."""
    return f"{instance.id} {instance.started}"
