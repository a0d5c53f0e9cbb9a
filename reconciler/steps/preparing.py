"""From what was read to what can be published: settle, certificates, plan, render, preflight.

It is begun anew without the objects that cannot go into service yet: routes whose certificate is still on its way, and
what the throwaway Traefik refuses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from reconciler.errors import Rejected
from reconciler.observability.metrics import Metrics
from reconciler.status import Tracker
from reconciler.steps.certificates import Certificates
from reconciler.steps.desire import Desire
from reconciler.steps.fronts import Fronts, PreflightRefused
from reconciler.steps.passing import Pass
from schemas.problem import Problem
from schemas.status import Stage

MAX_ROUNDS: Final = 5
"""Times that a pass is settled again without the objects that the throwaway Traefik refused."""


class Preparing:
    """Everything before the commit point, and its place in the convergence record."""

    def __init__(
        self, desire: Desire, certificates: Certificates, fronts: Fronts, tracker: Tracker, metrics: Metrics
    ) -> None:
        self._desire = desire
        self._certificates = certificates
        self._fronts = fronts
        self._tracker = tracker
        self._metrics = metrics
        self.problems: tuple[Problem, ...] = ()
        """Of the newest revision that was settled."""

    async def prepare(self, this: Pass) -> None:
        """Fill the pass up to the staged files.

        Raises:
            Rejected: when the revision may not go live, or nothing that Traefik takes is left of it.
            Transient, Broken: when it should be tried again.
        """
        for _ in range(MAX_ROUNDS):
            await self._settle(this)
            with self._metrics.stage("planned"):
                try:
                    await self._desire.plan(this)
                finally:
                    if not this.is_again:
                        self._tracker.note(this.revision, plan=this.plan)
                        if this.plan is not None:
                            self._tracker.reach(this.revision, "planned")
            await self._stage(this, "rendered", self._fronts.render)
            try:
                await self._stage(this, "preflighted", self._fronts.preflight)
            except PreflightRefused as refused:
                this.refused |= refused.objects
                self._metrics.preflight_failed("ObjectsRefused")
                continue
            return
        raise Rejected("Traefik refuses the render again and again.", reason="PreflightFailed")

    async def _settle(self, this: Pass) -> None:
        """Settle until no route that comes or changes waits for its certificate."""
        while True:
            await self._desire.settle(this)
            waiting = await self._certificates.bring(this)
            if waiting.keys() <= this.refused.keys():
                break
            this.refused |= waiting
        if not this.is_again:
            self._tracker.reach(this.revision, "validated")
        for problem in set(this.problems).difference(self.problems):
            self._metrics.problem(problem.code)
        self.problems = this.problems
        self._tracker.note(this.revision, quarantined=this.problems)

    async def _stage(self, this: Pass, stage: Stage, step: Callable[[Pass], Awaitable[None]]) -> None:
        with self._metrics.stage(stage):
            await step(this)
        if not this.is_again:
            self._tracker.reach(this.revision, stage)
