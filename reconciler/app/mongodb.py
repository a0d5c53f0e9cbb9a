"""What ``serve`` does for databases beside routing: answer wrong connections, and end those that were revoked."""

from __future__ import annotations

from pathlib import Path

from reconciler.mongodb.doorman import Doorman
from reconciler.store.protocols import EventStore
from reconciler.traefik.severing import Severing


class MongoDB:
    """``doors``: where fronts are to lead wrong connections.

    Raises:
        Broken: when nothing can be listened on.
    """

    def __init__(self, data: Path, events: EventStore) -> None:
        self._doorman = Doorman.open(data)
        self.doors = self._doorman.doors
        self.severing = Severing(events)

    async def run(self) -> None:
        """Answer until cancelled."""
        await self._doorman.run()

    def close(self) -> None:
        self._doorman.close()
