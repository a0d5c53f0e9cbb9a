"""The forge of the state repo: statuses of commits and pull requests of proposals, where one is set."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from reconciler.agents.group_commit import Job
from reconciler.convergence import Record, to_status
from reconciler.errors import CloudLunacyError
from reconciler.forges.forge import Forge, Proposal, PullRequest
from reconciler.forges.opening import open_forge
from reconciler.forges.patience import Patience
from reconciler.forges.posting import Statuses
from reconciler.forges.proposals import Proposals, proposal_of
from reconciler.forges.settings_file import read_settings
from reconciler.forges.statuses import status_of
from reconciler.observability.logs import get_logger
from reconciler.store.forges import ForgeStore
from reconciler.store.protocols import Event
from schemas.status import RevisionStatus

log = get_logger(__name__)

PROPOSAL_SECONDS: Final = 10.0
"""How long somebody who changes something waits for the URL of the pull request."""
NEWEST: Final = 64
"""Records that are looked at after a start."""


class Timeline(Protocol):
    async def append(self, event: Event) -> Event: ...


class Forges:
    """Does nothing without a forge. ``public_url``: where people reach the control plane."""

    def __init__(
        self,
        file: Path | None,
        *,
        remote: str,
        public_url: str,
        data: Path,
        events: Timeline,
        statuses: Callable[[int], Coroutine[Any, Any, Sequence[RevisionStatus]]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._public_url = public_url
        self._events = events
        self._recent = statuses
        self._clock = clock
        self._forge: Forge | None = None
        if file is None:
            return
        place, access = read_settings(file, remote)
        log.info("forge", kind=place.kind, api=place.api, repository=place.repository)
        self._forge = open_forge(place, access)
        self._store = ForgeStore(data)
        self._statuses = Statuses(self._forge, self._store, Patience(self._tell))
        self._proposals = Proposals(
            self._forge, self._store, Patience(), on_opened=self._opened, on_refused=self._refused
        )

    # --- what others tell ---------------------------------------------------------------------------------------

    def judged(self, record: Record) -> None:
        """Note that a record's state has become another one."""
        if self._forge is not None:
            self._statuses.want(record.revision, status_of(to_status(record), self._public_url))

    async def pushed(self, job: Job) -> None:
        """Note that a commit is on the remote; where it waits to be merged, it gets a pull request, later."""
        if self._forge is None or not job.proposal or job.base is None:
            return
        try:
            await self._proposals.add(self._proposal(job.branch, job.base, job.request.subject, job.request.body))
        except CloudLunacyError as error:
            log.warning("a pull request will not be opened", branch=job.branch, error=str(error))

    async def proposed(self, branch: str, base: str, subject: str, body: str) -> str:
        """Return the URL of the pull request of a branch, opened if need be; "" where there is no forge, or not yet."""
        if self._forge is None:
            return ""
        return await self._proposals.open(self._proposal(branch, base, subject, body), PROPOSAL_SECONDS)

    def _proposal(self, branch: str, base: str, subject: str, body: str) -> Proposal:
        return proposal_of(branch, base, subject, body, self._public_url)

    # --- running ------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Take up what an earlier process knew, and catch up with what happened since.

        Without its file there are neither statuses nor pull requests until the next start, and nothing else is lost.
        """
        if self._forge is None:
            return
        try:
            await self._store.open()
            await self._statuses.load()
            await self._proposals.load()
        except CloudLunacyError as error:
            await self.close()
            self._forge = None
            await self._tell("ForgeUnavailable", f"Neither statuses nor pull requests until the next start: {error}")
            return
        for notice in self._store.notices:
            log.warning("store replaced", notice=notice)
        recent = await self._recent(NEWEST)
        for number, one in reversed(list(enumerate(recent))):
            if number == 0 or one.revision in self._statuses.known:
                self._statuses.want(one.revision, status_of(one, self._public_url))

    def tasks(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """Return what has to run, by name."""
        if self._forge is None:
            return {}
        return {"forge-statuses": self._statuses.run(), "forge-proposals": self._proposals.run()}

    async def close(self) -> None:
        if self._forge is not None:
            await self._forge.close()
            await self._store.close()

    # --- the timeline -------------------------------------------------------------------------------------------

    async def _opened(self, proposal: Proposal, found: PullRequest) -> None:
        text = f"Pull request {found.number} asks for {proposal.title}: {found.url}"
        await self._append("PullRequestOpened", "info", proposal.branch, text)

    async def _refused(self, proposal: Proposal, why: str) -> None:
        text = f"No pull request could be opened for {proposal.title}; the branch is there: {why}"
        await self._append("PullRequestRefused", "warning", proposal.branch, text)

    async def _tell(self, kind: str, message: str) -> None:
        await self._append(kind, "info" if kind == "ForgeAvailable" else "warning", "", message)

    async def _append(self, kind: str, severity: Any, branch: str, message: str) -> None:  # noqa: ANN401 - Event's
        subject = f"branch/{branch}" if branch else "forge"
        try:
            await self._events.append(Event(self._clock(), kind, severity, subject, message))
        except CloudLunacyError as error:
            log.warning("what the forge did is not in the timeline", type=kind, error=str(error))
