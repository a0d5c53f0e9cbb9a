"""Approving a held plan: what the API and the page of a revision do when a person decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from reconciler.errors import Refused
from reconciler.pki.authenticator import Identity
from reconciler.status import Tracker
from reconciler.store.protocols import Approval, ApprovalStore, Event, EventStore


class Held(Protocol):
    """What holds plans. :class:`reconciler.web.api.Control` is one."""

    @property
    def ready(self) -> bool: ...
    def reconsider(self) -> None: ...


class Approving:
    """One way to approve. ``clock`` returns POSIX seconds."""

    def __init__(
        self,
        *,
        control: Held,
        tracker: Tracker,
        approvals: ApprovalStore,
        events: EventStore,
        clock: Callable[[], float],
    ) -> None:
        self._control = control
        self._tracker = tracker
        self._approvals = approvals
        self._events = events
        self._clock = clock

    @property
    def awaited(self) -> str:
        """What waits for a person now; empty where nothing does."""
        return self._tracker.awaited

    async def approve(self, checksum: str, identity: Identity) -> Approval:
        """Let through what waits, by its checksum; the caller was asked for the scope ``approve``.

        Raises:
            Refused: 409 ``nothing-waits``, 503 ``starting``.
            Transient, Broken: from the store.
        """
        waits = self._tracker.awaited == checksum
        approval = await self._approvals.approval(checksum)
        if approval is None:
            if not waits:
                raise self._nothing_waits(checksum)
            approval = Approval(checksum, str(identity), self._clock())
            await self._approvals.approve(approval)
            text = f"{identity} approved {checksum}"
            await self._events.append(
                Event(approval.approved_at, "PlanApproved", "info", f"plan/{checksum}", text, actor=str(identity))
            )
        if waits:
            self._control.reconsider()
        return approval

    def _nothing_waits(self, checksum: str) -> Refused:
        """An approval that nothing waits for would lie there until somebody pushes what nobody has looked at."""
        if not self._control.ready:
            text = "the control plane has started and not looked at the remote yet, so it does not know what waits."
            return Refused(text, status=503, code="starting", hint="Try again in a moment.", retry_after=2.0)
        awaited = self._tracker.awaited
        hint = f"What waits now is {awaited}." if awaited else "The newest revision waits for no approval."
        return Refused(f"nothing waits for the approval of {checksum}.", status=409, code="nothing-waits", hint=hint)
