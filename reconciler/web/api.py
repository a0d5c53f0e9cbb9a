"""The API for people and programs: where everything stands, and approvals. Shapes in ``schemas.api``."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from reconciler.errors import Refused
from reconciler.pki.authenticator import Authenticator, Identity, Scope
from reconciler.status import Tracker
from reconciler.steps.passing import Published
from reconciler.store.protocols import AgentObservation, Approval, ApprovalStore, Event, EventStore
from reconciler.web.agent_views import agent_status
from reconciler.web.bodies import read_json
from reconciler.web.endpoint import Endpoint
from reconciler.web.event_views import event_view
from reconciler.web.problem import invalid
from reconciler.web.queries import LARGEST_PAGE, limit_of, number_of, page_of
from schemas.agent import Agent
from schemas.api import (
    Accepted,
    AgentCondition,
    AgentList,
    ApprovalAnswer,
    ApprovalRequest,
    EventList,
    FleetStatus,
    FrontStatus,
    ObjectList,
    ObjectSummary,
    PublishedObject,
    PublishedState,
    RevisionList,
)
from schemas.health_api import AgentHealth, Presence
from schemas.objects import key_of_path
from schemas.plan import Plan
from schemas.problem import Problem
from schemas.status import RevisionStatus

_REVISION: Final = re.compile(r"^[0-9a-f]{7,64}$")
M = TypeVar("M", bound=BaseModel)


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
    """The endpoints; ``endpoints()`` is the table."""

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
        self._approvals = approvals
        self._events = events
        self._authenticator = authenticator
        self._clock = clock

    def endpoints(self) -> tuple[Endpoint, ...]:
        paging = {"limit": f"at most {LARGEST_PAGE}", "after": "what `next` of the former page said"}
        return (
            Endpoint("GET", "/api/v1/status", "What is published", self.fleet, "read", response=FleetStatus),
            Endpoint("GET", "/api/v1/revisions", "Convergence records, newest first", self.revisions, "read",
                     response=RevisionList, query={"limit": f"at most {LARGEST_PAGE}"}),
            Endpoint("GET", "/api/v1/revisions/{revision}", "Convergence record of a revision, or of the `newest`",
                     self.revision, "read", response=RevisionStatus),
            Endpoint("GET", "/api/v1/revisions/{revision}/plan", "Plan of a revision", self.plan, "plan",
                     response=Plan),
            Endpoint("GET", "/api/v1/objects", "Objects with their state", self.objects, "read",
                     response=ObjectList, query=paging),
            Endpoint("GET", "/api/v1/state", "Every object in service", self.state, "plan", response=PublishedState),
            Endpoint("GET", "/api/v1/agents", "Agents with what they report", self.agents, "read",
                     response=AgentList, query=paging),
            Endpoint("GET", "/api/v1/events", "Timeline", self.events, "read", response=EventList,
                     query={"after": "id of the last event seen", "limit": f"at most {LARGEST_PAGE}",
                            "subject": "only these"}),
            Endpoint("POST", "/api/v1/approvals", "Approve a held plan by its checksum", self.approve, "approve",
                     request=ApprovalRequest, response=ApprovalAnswer, status=201),
            Endpoint("POST", "/api/v1/reconcile", "Look at the remote now", self.reconcile, "operate",
                     response=Accepted, status=202),
        )  # fmt: skip

    # --- what is published --------------------------------------------------------------------------------------

    async def fleet(self, request: Request) -> Response:
        self._caller(request, "read")
        published, newest = self._control.published, await self._tracker.newest_status()
        kinds = Counter(key.kind for key in published.state.served)
        return _answer(
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

    async def objects(self, request: Request) -> Response:
        self._caller(request, "read")
        state = self._control.published.state
        problems: dict[str, list[Problem]] = {}
        for problem in self._control.problems():
            problems.setdefault(problem.file, []).append(problem)
        paths = {key.path: key for key in state.served}
        page, following = page_of(request, {*paths, *problems})
        found = []
        for path in page:
            key = paths.get(path) or key_of_path(path)
            served = state.served.get(key) if key is not None else None
            name = "LastGood" if served and served.retained else "InService" if served else "Quarantined"
            found.append(
                ObjectSummary.model_validate(
                    {
                        "kind": key.kind if key else "",
                        "team": key.team if key else "",
                        "name": key.name if key else path,
                        "path": path,
                        "blob": served.blob if served else "",
                        "state": name,
                        "problems": tuple(problems.get(path, ())),
                    }
                )
            )
        return _answer(ObjectList(objects=tuple(found), next=following))

    async def state(self, request: Request) -> Response:
        self._caller(request, "plan")
        published = self._control.published
        objects = await asyncio.to_thread(_published_objects, published)
        return _answer(PublishedState(generation=published.generation, revision=published.revision, objects=objects))

    async def agents(self, request: Request) -> Response:
        self._caller(request, "read")
        published, seen, present = self._control.published, self._control.observations(), self._control.connected()
        known = {one.object.metadata.name: one.object for one in published.state.served.values()
                 if isinstance(one.object, Agent)}  # fmt: skip
        page, following = page_of(request, known)
        conditions = self._control.conditions(page)
        found = tuple(
            agent_status(
                known[name],
                published,
                seen.get(name),
                connected=name in present,
                conditions=conditions[name],
                health=self._control.health_of(name),
            )
            for name in page
        )
        return _answer(AgentList(agents=found, next=following))

    # --- revisions ----------------------------------------------------------------------------------------------

    async def revisions(self, request: Request) -> Response:
        self._caller(request, "read")
        return _answer(RevisionList(revisions=tuple(await self._tracker.statuses(limit=limit_of(request)))))

    async def revision(self, request: Request) -> Response:
        self._caller(request, "read")
        return _answer(await self._status(request.path_params["revision"]))

    async def plan(self, request: Request) -> Response:
        self._caller(request, "plan")
        status = await self._status(request.path_params["revision"])
        plan = await self._control.plan(status.revision)
        if plan is None:
            raise Refused("there is no plan of this revision.", status=404, code="unknown-plan")
        return _answer(plan)

    async def _status(self, name: str) -> RevisionStatus:
        if name == "newest":
            status = await self._tracker.newest_status()
        elif not _REVISION.match(name):
            hint = "Give at least 7 digits of a commit, or newest."
            raise Refused("this is no revision.", status=404, code="unknown-revision", hint=hint)
        else:
            status = await self._tracker.status(name)
            if status is None and (newer := await self._control.superseding(name)) is not None:
                status = await self._tracker.status(newer)
        if status is None:
            hint = "Was it pushed to the branch that the control plane follows?"
            raise Refused("this revision was not looked at.", status=404, code="unknown-revision", hint=hint)
        return status

    async def events(self, request: Request) -> Response:
        self._caller(request, "read")
        found = await self._events.events(
            after=number_of(request, "after", 0, 2**53),
            limit=limit_of(request),
            subject=request.query_params.get("subject"),
        )
        return _answer(EventList(events=tuple(event_view(one) for one in found)))

    # --- what a person decides ----------------------------------------------------------------------------------

    async def approve(self, request: Request) -> Response:
        caller = self._caller(request, "approve")
        try:
            wanted = await read_json(request, ApprovalRequest)
        except ValidationError as error:
            return invalid(error)
        checksum = wanted.checksum
        waits = self._tracker.awaited == checksum
        approval = await self._approvals.approval(checksum)
        if approval is None:
            if not waits:
                raise self._nothing_waits(checksum)
            approval = Approval(checksum, str(caller), self._clock())
            await self._approvals.approve(approval)
            text = f"{caller} approved {checksum}"
            await self._events.append(
                Event(approval.approved_at, "PlanApproved", "info", f"plan/{checksum}", text, actor=str(caller))
            )
        if waits:
            self._control.reconsider()
        return _answer(ApprovalAnswer(checksum=checksum, approved_by=approval.approved_by), 201)

    def _nothing_waits(self, checksum: str) -> Refused:
        """An approval that nothing waits for would lie there until somebody pushes what nobody has looked at."""
        if not self._control.ready:
            text = "the control plane has started and not looked at the remote yet, so it does not know what waits."
            return Refused(text, status=503, code="starting", hint="Try again in a moment.", retry_after=2.0)
        awaited = self._tracker.awaited
        hint = f"What waits now is {awaited}." if awaited else "The newest revision waits for no approval."
        return Refused(f"nothing waits for the approval of {checksum}.", status=409, code="nothing-waits", hint=hint)

    async def reconcile(self, request: Request) -> Response:
        self._caller(request, "operate")
        self._control.wake()
        return _answer(Accepted(accepted=True, message="the next look at the remote is now"), 202)

    def _caller(self, request: Request, scope: Scope) -> Identity:
        identity = self._authenticator.authenticate(request.method, str(request.url), request.headers, self._clock())
        identity.require(scope)
        return identity


def _published_objects(published: Published) -> tuple[PublishedObject, ...]:
    return tuple(
        PublishedObject.model_construct(
            path=key.path,
            blob=one.blob,
            document=one.object.model_dump(mode="json", by_alias=True, exclude_unset=True),
        )
        for key, one in sorted(published.state.served.items())
    )


def _answer(model: BaseModel, status: int = 200) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(model.model_dump_json(by_alias=True), status, headers, "application/json")
