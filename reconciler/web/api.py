"""The API for people and programs: where everything stands, and approvals. Shapes in ``schemas.api``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from reconciler.pki.authenticator import Authenticator
from reconciler.status import Tracker
from reconciler.steps.passing import Published
from reconciler.store.protocols import AgentObservation, ApprovalStore, EventStore
from reconciler.web.approving import Approving
from reconciler.web.bodies import whole_answer
from reconciler.web.callers import Callers
from reconciler.web.endpoint import Endpoint
from reconciler.web.event_api import EventApi
from reconciler.web.object_api import ObjectApi
from reconciler.web.revision_api import RevisionApi
from schemas.api import Accepted, AgentCondition, FleetStatus, FrontStatus
from schemas.health_api import AgentHealth, Presence
from schemas.plan import Plan
from schemas.problem import Problem


class Control(Protocol):
    """What the API needs of the running control plane: :class:`reconciler.app.ControlPlane`."""

    @property
    def published(self) -> Published: ...
    @property
    def ready(self) -> bool: ...
    def problems(self) -> tuple[Problem, ...]: ...
    def observations(self) -> dict[str, AgentObservation]: ...
    def connected(self) -> frozenset[str]: ...
    def conditions(self, names: Iterable[str]) -> dict[str, tuple[AgentCondition, ...]]: ...
    def health_of(self, name: str) -> AgentHealth: ...
    def presence_of(self, name: str) -> Presence: ...
    async def fronts(self) -> tuple[FrontStatus, ...]: ...
    async def superseding(self, revision: str) -> str | None:
        """Return the known revision that a never considered commit is part of, None where there is none."""
        ...

    async def plan(self, revision: str) -> Plan | None: ...
    def wake(self) -> None: ...
    def reconsider(self) -> None: ...


class Api:
    """The endpoints; ``endpoints()`` is the table, with those of the parts that it is made of."""

    def __init__(
        self,
        *,
        control: Control,
        tracker: Tracker,
        approvals: ApprovalStore,
        events: EventStore,
        authenticator: Authenticator,
        clock: Callable[[], float],
    ) -> None:
        self._control = control
        self._tracker = tracker
        self._callers = Callers(authenticator, clock)
        approving = Approving(control=control, tracker=tracker, approvals=approvals, events=events, clock=clock)
        self._parts = (
            RevisionApi(
                control=control, tracker=tracker, approvals=approvals, approving=approving, callers=self._callers
            ),
            ObjectApi(control=control, callers=self._callers),
            EventApi(events=events, callers=self._callers),
        )

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("GET", "/api/v1/status", "What is published", self.fleet, "read", response=FleetStatus),
            Endpoint("POST", "/api/v1/reconcile", "Look at the remote now", self.reconcile, "operate",
                     response=Accepted, status=202),
            *(endpoint for part in self._parts for endpoint in part.endpoints()),
        )  # fmt: skip

    async def fleet(self, request: Request) -> Response:
        self._callers.caller(request, "read")
        published, newest = self._control.published, await self._tracker.newest_status()
        kinds = Counter(key.kind for key in published.state.served)
        return whole_answer(
            FleetStatus(
                generation=published.generation,
                revision=published.revision,
                published_objects=dict(kinds),
                quarantined=self._control.problems(),
                agents_connected=len(self._control.connected()),
                agents_total=kinds["Agent"],
                fronts=await self._control.fronts(),
                newest=newest,
            )
        )

    async def reconcile(self, request: Request) -> Response:
        self._callers.caller(request, "operate")
        self._control.wake()
        return whole_answer(Accepted(accepted=True, message="the next look at the remote is now"), 202)
