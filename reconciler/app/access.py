"""Letting in and locking out: what is built for it, and what the other parts tell it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final

from reconciler.agents.asked_routes import compose_route
from reconciler.agents.certificates import AgentCertificates
from reconciler.agents.directory import AgentDirectory
from reconciler.agents.enrolment import compose
from reconciler.agents.group_commit import GroupCommitter, Job, Settled
from reconciler.agents.hub import Hub
from reconciler.agents.revocation import Revocations, compose_revocation
from reconciler.convergence import Record, judge
from reconciler.pki.api_tokens import ApiTokens
from reconciler.pki.authenticator import Authenticator
from reconciler.store.protocols import OutboxEntry
from reconciler.store.sqlite import SQLiteStore
from reconciler.web.access_api import AccessApi
from schemas.fleet import Fleet

_COMPOSERS: Final = {"enrolment": compose, "revocation": compose_revocation, "route": compose_route}


class Access:
    """``reconsider`` has a revision that is held looked at again."""

    def __init__(
        self,
        *,
        store: SQLiteStore,
        committer: GroupCommitter,
        directory: AgentDirectory,
        hub: Hub,
        certificates: AgentCertificates,
        fleet: Callable[[], Fleet | None],
        reconsider: Callable[[], None],
    ) -> None:
        self.tokens = ApiTokens(store)
        self._certificates = certificates
        self._reconsider = reconsider
        self._revocations = Revocations(
            store=store,
            committer=committer,
            directory=directory,
            hub=hub,
            certificates=certificates,
            fleet=fleet,
            reconsider=reconsider,
        )

    def api(self, authenticator: Authenticator) -> AccessApi:
        """Return its endpoints."""
        return AccessApi(authenticator=authenticator, revocations=self._revocations, tokens=self.tokens)

    async def load(self) -> None:
        """Take up what an earlier process knew. Call it before anybody is let in."""
        await self._revocations.load()
        await self.tokens.load()

    def tasks(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """Return what has to run, by name."""
        return {"revocations": self._revocations.run(), "api-tokens": self.tokens.run()}

    def published(self, gone: frozenset[str]) -> None:
        """Note that a state is in service, and who is out by it."""
        self._certificates.revoke(gone)
        self._revocations.published()

    def judged(self, record: Record) -> None:
        """Note that a record's state has become another one."""
        if record.plan is not None and judge(record)[:2] == ("Held", "DeletionGuard"):
            self._revocations.held(record.plan)

    async def settled(self, entry: OutboxEntry, settled: Settled) -> None:
        """Note what became of a revocation's commit."""
        self._reconsider()
        await self._revocations.settled(entry, settled)


def composer(branch: str) -> Callable[[OutboxEntry], Job]:
    """Return what turns an entry of the outbox into its commit."""
    return partial(_compose, branch=branch)


def _compose(entry: OutboxEntry, *, branch: str) -> Job:
    return _COMPOSERS[entry.kind](entry, branch=branch)
