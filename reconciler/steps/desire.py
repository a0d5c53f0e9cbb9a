"""What the revision wants: read, settle, plan, and the guard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from reconciler.desired.finding import Finding
from reconciler.desired.locate import in_order, located
from reconciler.desired.plan import make_plan
from reconciler.desired.revoked import findings_of
from reconciler.desired.routing import compile_route
from reconciler.desired.settle import settle
from reconciler.desired.state import State
from reconciler.desired.view import OpenSecret
from reconciler.errors import Rejected
from reconciler.steps.passing import Pass
from reconciler.steps.reading import DocumentReader
from schemas.objects import FLEET_PATH, key_of_path
from schemas.problem import Problem

MAX_LOCATED = 2000
"""Files whose problems get a line; beyond it everything is reported at the file's start."""

Located = tuple[str, tuple[Finding, ...]]


class Desire:
    """``approved(checksum)`` says whether a person agreed to a plan."""

    def __init__(
        self, reader: DocumentReader, open_sealed: OpenSecret, approved: Callable[[str], Awaitable[bool]]
    ) -> None:
        self._reader = reader
        self._open_sealed = open_sealed
        self._approved = approved
        self._located: dict[Located, tuple[Problem, ...]] = {}

    async def read(self, this: Pass) -> None:
        this.news = tuple(await self._reader.read(this.changes))

    async def keep(self) -> None:
        """Let the next start find what was read."""
        await self._reader.keep()

    async def settle(self, this: Pass) -> None:
        """Settle the revision. Raises Rejected when there is no fleet file, so that nothing can be judged."""
        this.settled = await asyncio.to_thread(
            settle,
            this.base.state,
            this.revision,
            this.news,
            compile_route=compile_route,
            open_sealed=self._open_sealed,
            refused=this.refused,
        )
        this.problems = await self.locate(this.state)
        if this.state.fleet is None:
            raise Rejected(
                "there is no valid fleet.yaml, so nothing can be judged.",
                reason="NoFleet",
                problems=this.problems,
                hint=next((str(problem) for problem in this.problems if problem.file == FLEET_PATH), ""),
            )

    async def plan(self, this: Pass) -> None:
        """Compare with what is published. Raises Rejected when the guard wants a person, who has not agreed yet."""
        assert this.settled is not None
        plan = this.plan = await asyncio.to_thread(make_plan, this.base.state, this.settled, this.problems)
        if plan.guard is not None and not await self._approved(plan.checksum):
            raise Rejected(
                f"{plan.guard.message}; what is published stays in service.",
                reason=plan.guard.reason,
                problems=this.problems,
                hint="If that is meant, approve the plan.",
                approve=plan.checksum,
            )

    async def locate(self, state: State) -> tuple[Problem, ...]:
        """Give each finding its line. What was located before is not read again."""
        wanted = {(_blob_of(state, path), found): path for path, found in findings_of(state).items()}
        new = [one for one in wanted if one not in self._located]
        contents = await self._reader.contents([blob for blob, _ in new[:MAX_LOCATED] if blob])
        fresh = await asyncio.to_thread(_locate_all, {one: wanted[one] for one in new}, contents)
        self._located = {one: fresh.get(one) or self._located[one] for one in wanted}
        return in_order(problem for found in self._located.values() for problem in found)


def _blob_of(state: State, path: str) -> str:
    """Return what a finding was made of: the newest file, or, where nothing is wrong with it alone, what is served."""
    key = key_of_path(path)
    served = state.served.get(key) if key is not None else None
    return state.blobs.get(path) or (served.blob if served is not None else "")


def _locate_all(wanted: Mapping[Located, str], contents: Mapping[str, bytes]) -> dict[Located, tuple[Problem, ...]]:
    return {(blob, findings): located(path, contents.get(blob), findings) for (blob, findings), path in wanted.items()}
