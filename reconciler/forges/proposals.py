"""Pull requests for branches of our own: enrolments, revocations, asked routes and changes in mode pull-request.

A proposal is kept durably until the forge has its pull request, so that an outage or a restart only makes it late. Once
for each: an open pull request of the branch is taken for ours, whoever opened it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from reconciler.errors import CloudLunacyError, Rejected
from reconciler.forges.forge import MOST_TITLE, Forge, Proposal, PullRequest, cut, propose
from reconciler.forges.markdown import fence
from reconciler.forges.patience import Patience
from reconciler.observability.logs import get_logger
from reconciler.store.forges import Proposed, ProposedStore

log = get_logger(__name__)

MOST: Final = 1000
Opened = Callable[[Proposal, PullRequest], Awaitable[None]]
Failed = Callable[[Proposal, str], Awaitable[None]]


def proposal_of(branch: str, base: str, subject: str, body: str, page: str) -> Proposal:
    """Return the pull request of a commit: its words, as text that does nothing, and where it comes from.

    ``page``: URL of the control plane.
    """
    said = f"{fence(body)}\n\n" if body.strip() else ""
    text = f"{said}Opened by the control plane at {page}. It goes into service once it is merged."
    return Proposal(branch, base, cut(subject, MOST_TITLE) or branch, text)


class Proposals:
    """Opens them at one forge. The application runs :meth:`run` as a task."""

    def __init__(
        self,
        forge: Forge,
        store: ProposedStore,
        patience: Patience,
        *,
        on_opened: Opened,
        on_refused: Failed,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._forge = forge
        self._store = store
        self._patience = patience
        self._on_opened = on_opened
        self._on_refused = on_refused
        self._clock = clock
        self._sleep = sleep
        self._pending: dict[str, Proposal] = {}
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._more = asyncio.Event()

    async def load(self) -> None:
        """Take up what an earlier process did not get done."""
        for one in await self._store.proposed(MOST):
            self._add(Proposal(one.branch, one.base, one.title, one.body))

    async def add(self, proposal: Proposal) -> None:
        """Have it opened. Durable when this returns.

        Raises:
            Transient, Broken: as the store.
        """
        row = Proposed(proposal.branch, proposal.base, proposal.title, proposal.body, self._clock())
        await self._store.save_proposed(row, keep=MOST)
        self._add(proposal)

    async def open(self, proposal: Proposal, seconds: float) -> str:
        """Have it opened; return the URL of the pull request, "" where it takes longer than that or is refused."""
        await self.add(proposal)
        waiting = self._waiting.setdefault(proposal.branch, asyncio.get_running_loop().create_future())
        await asyncio.wait([waiting], timeout=seconds)
        return waiting.result() if waiting.done() else ""

    def _add(self, proposal: Proposal) -> None:
        self._pending.pop(proposal.branch, None)
        self._pending[proposal.branch] = proposal
        while len(self._pending) > MOST:
            self._answer(next(iter(self._pending)), "")
        self._more.set()

    async def run(self) -> None:
        """Open what is pending, for ever."""
        while True:
            await self._more.wait()
            while (proposal := next(iter(self._pending.values()), None)) is not None:
                try:
                    await self._open(proposal)
                    await self._patience.succeeded()
                except CloudLunacyError as error:
                    await self._sleep(await self._patience.failed(error))
                except Exception as error:  # a bug must not end the task
                    log.exception("opening a pull request ended by a bug, trying again")
                    await self._sleep(await self._patience.failed(error))
            self._more.clear()

    async def _open(self, proposal: Proposal) -> None:
        try:
            found, is_new = await propose(self._forge, proposal)
        except Rejected as error:
            await self._store.forget_proposed(proposal.branch)
            self._settle(proposal, "")
            await self._on_refused(proposal, str(error))
            return
        await self._store.forget_proposed(proposal.branch)
        self._settle(proposal, found.url)
        if is_new:
            await self._on_opened(proposal, found)

    def _settle(self, proposal: Proposal, url: str) -> None:
        if self._pending.get(proposal.branch) == proposal:
            self._answer(proposal.branch, url)

    def _answer(self, branch: str, url: str) -> None:
        self._pending.pop(branch, None)
        if (waiting := self._waiting.pop(branch, None)) is not None:
            waiting.set_result(url)
