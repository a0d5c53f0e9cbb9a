"""What is built for roll-outs of deployments over several agents."""

from __future__ import annotations

import time
from collections.abc import Callable

from reconciler.observability.metrics import Metrics
from reconciler.observability.rollout_metrics import RolloutMetrics
from reconciler.observer import AgentObserver
from reconciler.pki.authenticator import Authenticator
from reconciler.status import Tracker
from reconciler.steps.passing import Published
from reconciler.steps.pauses import Pauses
from reconciler.steps.standings import Standings
from reconciler.steps.waves import Waves
from reconciler.store.sqlite import SQLiteStore
from reconciler.web.rollout_api import RolloutApi


class RollingOut:
    """``published``: what fronts and agents have now."""

    def __init__(
        self,
        store: SQLiteStore,
        tracker: Tracker,
        observer: AgentObserver,
        metrics: Metrics,
        published: Callable[[], Published],
    ) -> None:
        self.pauses = Pauses(store, time.time)
        self._standings = Standings(published, time.time)
        self._published = published
        self.waves = Waves(self._standings, tracker, paused=self.pauses.by, tell=observer.tell, clock=time.time)
        observer.watching = self._standings
        RolloutMetrics(metrics.registry, self.waves.counts)

    def api(self, authenticator: Authenticator) -> RolloutApi:
        """Return its endpoints."""
        return RolloutApi(
            authenticator=authenticator,
            published=self._published,
            waves=self.waves,
            standings=self._standings,
            pauses=self.pauses,
            clock=time.time,
        )
