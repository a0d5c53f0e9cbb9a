"""What people do with deployments, and what agents ask for them: commands, and routes."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Mapping
from typing import Any

from reconciler.agents.asked_routes import AskedRoutes
from reconciler.agents.commands import Commands
from reconciler.agents.group_commit import GroupCommitter
from reconciler.agents.hub import Hub
from reconciler.convergence import judge
from reconciler.desired.verdicts import Judge
from reconciler.desired.view import OpenSecret
from reconciler.observer import AgentObserver
from reconciler.pki.authenticator import Authenticator
from reconciler.status import Tracker
from reconciler.store.protocols import EventStore
from reconciler.store.sqlite import SQLiteStore
from reconciler.web.deployment_api import Control, DeploymentApi
from reconciler.web.errands import Errands
from reconciler.web.route_api import RouteApi
from schemas.objects import ObjectKey
from schemas.observation import DeploymentObservation


def asked_routes(
    control: Control,
    authenticator: Authenticator,
    *,
    issuer: str,
    store: SQLiteStore,
    committer: GroupCommitter,
    tracker: Tracker,
    open_sealed: OpenSecret,
) -> RouteApi:
    """Return the endpoints for routes that agents ask for."""

    def standing(revision: str) -> str:
        record = tracker.get(revision)
        return "" if record is None else judge(record)[0]

    routes = AskedRoutes(
        issuer=issuer,
        store=store,
        committer=committer,
        state=lambda: control.published.state,
        open_sealed=open_sealed,
        standing=standing,
    )
    return RouteApi(authenticator=authenticator, routes=routes, clock=time.time)


class Deployments:
    """``judge`` knows what agents see of deployments."""

    def __init__(
        self,
        control: Control,
        hub: Hub,
        events: EventStore,
        observer: AgentObserver,
        judge: Judge,
    ) -> None:
        self.commands = Commands(hub, events)
        self.errands = Errands(self.commands)
        self._control = control
        self._judge = judge
        observer.on_output = self.commands.said
        observer.on_gone = self.commands.gone

    def api(self, authenticator: Authenticator) -> DeploymentApi:
        """Return its endpoints."""
        return DeploymentApi(
            control=self._control,
            commands=self.commands,
            authenticator=authenticator,
            clock=time.time,
            seen=self.seen,
        )

    def seen(self, agent: str, key: ObjectKey) -> DeploymentObservation | None:
        """Return what an agent told last of a deployment."""
        known = self._judge.agents.get(agent)
        return None if known is None else known.told.get((key.team, key.name))

    def tasks(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """Return what has to run, by name."""
        return {"commands": self.commands.run(), "errands": self.errands.run()}
