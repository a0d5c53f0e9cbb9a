"""Revisions: records, plans, convergence; and what a person lets through."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, Protocol

from starlette.requests import Request
from starlette.responses import Response

from reconciler.errors import Refused
from reconciler.status import Tracker
from reconciler.store.protocols import Approval, ApprovalStore
from reconciler.web.approving import Approving
from reconciler.web.bodies import json_answer, read_json, tagged_answer, whole_answer
from reconciler.web.callers import Callers
from reconciler.web.endpoint import Endpoint
from reconciler.web.parameters import LARGEST_PAGE, PATH, number, one_of
from reconciler.web.queries import limit_of, number_of
from reconciler.web.revision_names import status_of
from schemas.api import (
    ApprovalAnswer,
    ApprovalList,
    ApprovalRequest,
    ApprovalView,
    Convergence,
    RevisionList,
    StageReached,
)
from schemas.plan import Plan
from schemas.status import STAGES, AgentProgress, RevisionStatus

LARGEST_ID: Final = 2**53
WAITING_SHOWN: Final = 100
STATES: Final = ("Progressing", "Converged", "Held", "Failed", "Superseded")
_CHECKSUM: Final = re.compile(PATH["checksum"].schema["pattern"].strip("^$"))


class Control(Protocol):
    """:class:`reconciler.web.api.Control`."""

    async def superseding(self, revision: str) -> str | None: ...
    async def plan(self, revision: str) -> Plan | None: ...


class RevisionApi:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(
        self,
        *,
        control: Control,
        tracker: Tracker,
        approvals: ApprovalStore,
        approving: Approving,
        callers: Callers,
    ) -> None:
        self._control = control
        self._tracker = tracker
        self._approvals = approvals
        self._approving = approving
        self._callers = callers

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        limit = number("How many at most.", LARGEST_PAGE, example=20)
        return (
            Endpoint("GET", "/api/v1/revisions", "Convergence records, newest first", self.revisions, "read",
                     response=RevisionList, query={
                         "limit": limit, "before": number("What `next` of the former page said.", LARGEST_ID),
                         "state": one_of("Only revisions in this state.", STATES, many=True)}),
            Endpoint("GET", "/api/v1/revisions/{revision}", "Convergence record of a revision, or of the `newest`",
                     self.revision, "read", response=RevisionStatus),
            Endpoint("GET", "/api/v1/revisions/{revision}/plan", "What publishing a revision changes", self.plan,
                     "plan", response=Plan, headers=("ETag",)),
            Endpoint("GET", "/api/v1/revisions/{revision}/convergence", "How far a revision has come",
                     self.convergence, "read", response=Convergence),
            Endpoint("GET", "/api/v1/approvals", "What waits for a person, and what was approved", self.approvals,
                     "read", response=ApprovalList, query={"limit": limit, "before": PATH["checksum"]}),
            Endpoint("GET", "/api/v1/approvals/{checksum}", "One approval", self.approval, "read",
                     response=ApprovalView),
            Endpoint("POST", "/api/v1/approvals", "Approve a held plan by its checksum", self.approve, "approve",
                     request=ApprovalRequest, response=ApprovalAnswer, status=201, headers=("Location",),
                     problems={409: "Nothing waits for this."}, example={"checksum": f"sha256:{'0' * 64}"}),
        )  # fmt: skip

    # --- revisions ----------------------------------------------------------------------------------------------

    async def revisions(self, request: Request) -> Response:
        self._callers.caller(request, "read")
        limit, before = limit_of(request), request.query_params.get("before")
        found = await self._tracker.page(
            limit=limit + 1,
            before=None if before is None else number_of(request, "before", 0, LARGEST_ID),
            states=request.query_params.getlist("state"),
        )
        following = str(found[limit - 1][0]) if len(found) > limit else ""
        return whole_answer(RevisionList(revisions=tuple(one for _, one in found[:limit]), next=following))

    async def revision(self, request: Request) -> Response:
        self._callers.caller(request, "read")
        return whole_answer(await self._status(request.path_params["revision"]))

    async def plan(self, request: Request) -> Response:
        self._callers.caller(request, "plan")
        status = await self._status(request.path_params["revision"])
        plan = await self._control.plan(status.revision)
        if plan is None:
            raise Refused("There is no plan of this revision.", status=404, code="unknown-plan")
        return tagged_answer(request, plan)

    async def convergence(self, request: Request) -> Response:
        self._callers.caller(request, "read")
        return json_answer(convergence_of(await self._status(request.path_params["revision"])))

    async def _status(self, name: str) -> RevisionStatus:
        return await status_of(name, self._tracker, self._control)

    # --- what a person decides ----------------------------------------------------------------------------------

    async def approvals(self, request: Request) -> Response:
        self._callers.caller(request, "read")
        limit, before = limit_of(request), request.query_params.get("before", "")
        found = await self._approvals.approvals(limit=limit + 1, before=before)
        shown = [_approved(one) for one in found[:limit]]
        if not before and (waits := await self._waiting()) is not None:
            shown.insert(0, waits)
        following = found[limit - 1].checksum if len(found) > limit else ""
        return json_answer(ApprovalList(approvals=tuple(shown), next=following))

    async def approval(self, request: Request) -> Response:
        self._callers.caller(request, "read")
        checksum = request.path_params["checksum"]
        waits = await self._waiting()
        if waits is not None and waits.checksum == checksum:
            return json_answer(waits)
        found = await self._approvals.approval(checksum) if _CHECKSUM.fullmatch(checksum) else None
        if found is None:
            raise Refused("This was neither approved, nor does it wait.", status=404, code="unknown-approval")
        return json_answer(_approved(found))

    async def approve(self, request: Request) -> Response:
        caller = self._callers.caller(request, "approve")
        wanted = await read_json(request, ApprovalRequest)
        found = await self._approving.approve(wanted.checksum, caller)
        answer = ApprovalAnswer(checksum=found.checksum, approved_by=found.approved_by)
        return json_answer(answer, 201, {"Location": f"/api/v1/approvals/{found.checksum}"})

    async def _waiting(self) -> ApprovalView | None:
        awaited = self._approving.awaited
        if not awaited or await self._approvals.approval(awaited) is not None:
            return None
        return ApprovalView(checksum=awaited, state="waiting", revision=self._tracker.newest)


def convergence_of(status: RevisionStatus) -> Convergence:
    """Return how far a revision has come: seconds between stages in the order in which they are reached."""
    stages, before = list[StageReached](), None
    for name in STAGES:
        at = status.stages.get(name)
        took: float | None = None if at is None or before is None else round((at - before).total_seconds(), 6)
        stages.append(StageReached(stage=name, at=at, seconds=took))
        before = at or before
    counts = Counter(one.state for one in status.agents.values())
    return Convergence(
        revision=status.revision,
        state=status.state,
        reason=status.reason,
        message=status.message,
        stages=tuple(stages),
        agents=dict(counts),
        waiting=tuple(_waiting_of(status.agents.items()))[:WAITING_SHOWN],
    )


def _waiting_of(agents: Iterable[tuple[str, AgentProgress]]) -> list[str]:
    return sorted(name for name, one in agents if one.state != "applied")


def _approved(one: Approval) -> ApprovalView:
    at = datetime.fromtimestamp(one.approved_at, UTC)
    return ApprovalView(checksum=one.checksum, state="approved", approved_by=one.approved_by, approved_at=at)
