"""What people do with deployments: the commands, who hears what agents say of them, and the endpoints."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Mapping
from typing import Any

from reconciler.agents.commands import Commands
from reconciler.agents.hub import Hub
from reconciler.observer import AgentObserver
from reconciler.pki.authenticator import Authenticator
from reconciler.store.protocols import EventStore
from reconciler.web.deployment_api import Control, DeploymentApi, Seen


class Deployments:
    """``seen``: what an agent sees of a deployment."""

    def __init__(
        self,
        control: Control,
        hub: Hub,
        events: EventStore,
        observer: AgentObserver,
        seen: Seen = lambda _agent, _key: None,
    ) -> None:
        self.commands = Commands(hub, events)
        self._control = control
        self._seen = seen
        observer.on_output = self.commands.said
        observer.on_gone = self.commands.gone

    def api(self, authenticator: Authenticator) -> DeploymentApi:
        """Return its endpoints."""
        return DeploymentApi(
            control=self._control,
            commands=self.commands,
            authenticator=authenticator,
            clock=time.time,
            seen=self._seen,
        )

    def tasks(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """Return what has to run, by name."""
        return {"commands": self.commands.run()}
