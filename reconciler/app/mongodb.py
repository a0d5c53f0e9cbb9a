"""What ``serve`` does for databases beside routing: answer wrong connections, and end those that were revoked."""

from __future__ import annotations

from pathlib import Path

from reconciler.mongodb.doorman import Doorman
from reconciler.observability.metrics import Metrics
from reconciler.observability.mongodb_metrics import MongoDBMetrics
from reconciler.store.protocols import EventStore
from reconciler.traefik.severing import Severing


class MongoDB:
    """``doors``: where fronts are to lead wrong connections.

    Raises:
        Broken: when nothing can be listened on.
    """

    def __init__(self, data: Path, events: EventStore, metrics: Metrics) -> None:
        counted = MongoDBMetrics(metrics.registry)
        self._doorman = Doorman.open(data)
        self._doorman.on_visit = counted.wrong
        self.doors = self._doorman.doors
        self.severing = Severing(events, counted)

    async def run(self) -> None:
        """Answer until cancelled."""
        await self._doorman.run()

    def close(self) -> None:
        self._doorman.close()
