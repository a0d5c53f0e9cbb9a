"""Letting in and locking out: what is built for it, and what the other parts tell it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reconciler.access.audit import Audit
from reconciler.access.login_links import LoginLinks
from reconciler.access.oidc_settings import OidcSettings, read_settings
from reconciler.access.sessions import Sessions
from reconciler.agents.asked_routes import compose_route
from reconciler.agents.certificates import AgentCertificates
from reconciler.agents.directory import AgentDirectory
from reconciler.agents.enrolment import compose
from reconciler.agents.group_commit import GroupCommitter, Job, Settled
from reconciler.agents.hub import Hub
from reconciler.agents.revocation import Revocations, compose_revocation
from reconciler.changes.committing import compose_change
from reconciler.convergence import Record, judge
from reconciler.pki.api_tokens import ApiTokens
from reconciler.pki.authenticator import Authenticator
from reconciler.store.protocols import OutboxEntry
from reconciler.store.sqlite import SQLiteStore
from reconciler.web.access_api import AccessApi
from reconciler.web.pages.kit import Site
from reconciler.web.pages.login import CALLBACK_PATH, LoginPages
from reconciler.web.pages.session_pages import SessionPages
from reconciler.web.session_api import SessionApi
from schemas.fleet import Access as AccessRules
from schemas.fleet import Fleet

if TYPE_CHECKING:
    from reconciler.access.oidc import Provider

_COMPOSERS: Final = {
    "enrolment": compose,
    "revocation": compose_revocation,
    "route": compose_route,
    "change": compose_change,
}


class Access:
    """``reconsider`` has a revision that is held looked at again; ``oidc_file`` says which provider there is.

    Raises:
        Broken: when that file does not say what it should.
    """

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
        oidc_file: Path | None = None,
    ) -> None:
        self.tokens = ApiTokens(store)
        self.audit = Audit(store)
        self._oidc = read_settings(oidc_file)
        issuer = None if self._oidc is None else self._oidc.issuer
        self.sessions = Sessions(store, self.audit, partial(_rules, fleet), issuer=issuer)
        self._links = LoginLinks(store, self.audit)
        self._certificates = certificates
        self._reconsider = reconsider
        self.revocations = Revocations(
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
        return AccessApi(authenticator=authenticator, revocations=self.revocations, tokens=self.tokens)

    def login(self, site: Site) -> tuple[SessionApi, LoginPages, SessionPages]:
        """Return what lets people in by their browsers."""
        door = site.authenticator
        provider = None if self._oidc is None else _provider(self._oidc, f"{door.issuer}{CALLBACK_PATH}")
        pages = LoginPages(site, sessions=self.sessions, links=self._links, audit=self.audit, provider=provider)
        api = SessionApi(authenticator=door, sessions=self.sessions, links=self._links)
        return api, pages, SessionPages(site, sessions=self.sessions, views=api.views)

    async def load(self) -> None:
        """Take up what an earlier process knew. Call it before anybody is let in."""
        await self.revocations.load()
        await self.tokens.load()
        await self.sessions.load()
        await self._links.load()

    def tasks(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """Return what has to run, by name."""
        return {
            "revocations": self.revocations.run(),
            "api-tokens": self.tokens.run(),
            "sessions": self.sessions.run(),
            "audit": self.audit.run(),
        }

    def published(self, gone: frozenset[str]) -> None:
        """Note that a state is in service, and who is out by it."""
        self._certificates.revoke(gone)
        self.revocations.published()

    def judged(self, record: Record) -> None:
        """Note that a record's state has become another one."""
        if record.plan is not None and judge(record)[:2] == ("Held", "DeletionGuard"):
            self.revocations.held(record.plan)

    async def settled(self, entry: OutboxEntry, settled: Settled) -> None:
        """Note what became of a revocation's commit."""
        self._reconsider()
        await self.revocations.settled(entry, settled)


def _provider(settings: OidcSettings, redirect_uri: str) -> Provider:
    from reconciler.access.oidc import Provider  # noqa: PLC0415  a fifth of a second that most starts do without

    return Provider(settings, redirect_uri)


def _rules(fleet: Callable[[], Fleet | None]) -> AccessRules:
    found = fleet()
    return AccessRules() if found is None else found.spec.access


def composer(branch: str) -> Callable[[OutboxEntry], Job]:
    """Return what turns an entry of the outbox into its commit."""
    return partial(_compose, branch=branch)


def _compose(entry: OutboxEntry, *, branch: str) -> Job:
    return _COMPOSERS[entry.kind](entry, branch=branch)
