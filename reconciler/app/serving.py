"""What answers over HTTP: who is let in, what is written back to git, and every endpoint."""

from __future__ import annotations

import importlib.metadata
import time
from functools import partial

from reconciler.agents.asked_routes import event_of
from reconciler.agents.certificates import AgentCertificates, Enrolled
from reconciler.agents.directory import AgentDirectory
from reconciler.agents.enrolment import Enrolments, recorder
from reconciler.agents.enrolment_tokens import EnrolmentTokens
from reconciler.agents.group_commit import PROPOSED, GroupCommitter, Settled
from reconciler.agents.rates import Bucket
from reconciler.app.access import Access, composer
from reconciler.app.acme import Acme
from reconciler.app.answering import Answering
from reconciler.app.certificate import OwnCertificate
from reconciler.app.changing import change_apis, make_changes
from reconciler.app.deployments import Deployments, asked_routes
from reconciler.app.feeding import Feeding
from reconciler.app.forges import Forges
from reconciler.app.installing import install_api
from reconciler.app.measuring import measure_api
from reconciler.app.notifying import Notices
from reconciler.app.own_names import url_of
from reconciler.app.pages import make_site, pages
from reconciler.app.rollouts import RollingOut
from reconciler.app.rotating import rotation_api, rotation_views
from reconciler.app.rotation import Rotations
from reconciler.app.tracing import Traces
from reconciler.app.traffic import Traffic
from reconciler.changes.service import Changes
from reconciler.convergence import Record
from reconciler.git.write_back import WriteBack
from reconciler.loop import Reconciler
from reconciler.observability.logs import get_logger
from reconciler.observability.metrics import Metrics
from reconciler.pki.authenticator import Authenticator
from reconciler.pki.keystore import KeyStore
from reconciler.pki.replay import ReplayCache
from reconciler.pki.token_endpoint import TokenEndpoint
from reconciler.pki.tokens import verify_enrolment_proof
from reconciler.settings import Settings
from reconciler.steps.certificates import Certificates
from reconciler.store.protocols import OutboxEntry
from reconciler.web.agent_api import AgentApi
from reconciler.web.agent_stream import AgentStream
from reconciler.web.api import Api
from reconciler.web.application import Probes, make_application
from reconciler.web.audited import audited
from reconciler.web.certificate_api import CertificateApi
from reconciler.web.server import Server, make_server
from reconciler.web.webhooks import WebhookEndpoint
from schemas.status import RevisionState

log = get_logger(__name__)


class Serving(Answering):
    """What :class:`reconciler.app.building.Parts` is to callers; these are the parts that it needs for it."""

    loop: Reconciler
    certificate: OwnCertificate
    acme: Acme
    rollouts: RollingOut
    feeding: Feeding
    changes: Changes
    traffic: Traffic
    rotations: Rotations
    forges: Forges
    traces: Traces
    address: str
    issuer: str
    _settings: Settings
    _port: int
    _scheme: str
    _metrics: Metrics
    _write_back: WriteBack
    _directory: AgentDirectory
    _certificates: AgentCertificates
    _front_certificates: Certificates
    _deployments: Deployments
    _committer: GroupCommitter
    _access: Access

    def _build_web(self, keys: KeyStore) -> Server:
        replays = ReplayCache()
        enrolment_tokens = EnrolmentTokens(self._store)
        self._committer = GroupCommitter(
            self._store,
            self._write_back,
            composer(self._settings.git.branch),
            pace=Bucket(self._settings.push_burst, 1 / self._settings.push_seconds),
            on_settled=self._note_settled,
        )
        self._committer.on_pushed = self._metrics.group_committed
        self.changes = make_changes(self, self._committer, keys.opener.open)
        self.traffic = Traffic(self, keys.opener.open)
        self._access = Access(
            store=self._store,
            committer=self._committer,
            directory=self._directory,
            hub=self._hub,
            certificates=self._certificates,
            fleet=lambda: self.loop.published.state.fleet,
            reconsider=self.reconsider,
            oidc_file=self._settings.oidc_file,
        )
        authenticator = Authenticator(
            issuer=self.issuer,
            origins=[self.address, *(url_of(self._scheme, name, self._port) for name in self.certificate.names)],
            keys=keys,
            agents=self._directory,
            replays=replays,
            given=self._access.tokens,
            sessions=self._access.sessions,
        )
        enrolments = Enrolments(
            issuer=self.issuer,
            tokens=enrolment_tokens,
            store=self._store,
            committer=self._committer,
            directory=self._directory,
            fleet=lambda: self.loop.published.state.fleet,
            verify_proof=verify_enrolment_proof,
            jwks=lambda: keys.jwks("desired"),
            certificates=self._certificates,
        )
        endpoint = TokenEndpoint(keys=keys, agents=self._directory, authenticator=authenticator, replays=replays)
        endpoint.lifetime *= self._settings.rotation_pace
        site = make_site(authenticator)
        self.notices = Notices(
            self,
            self._settings.data,
            self._store,
            tracker=self._tracker,
            certificates=lambda: self._front_certificates.statuses(self.loop.published),
            rotations=lambda: rotation_views(self),
            open_sealed=keys.opener.open,
            public_url=self.issuer,
            roots=lambda: self.certificate.authority.bundle().pem,
            registry=self._metrics.registry,
        )
        application = make_application(
            api=Api(
                control=self,
                tracker=self._tracker,
                approvals=self._store,
                events=self._store,
                authenticator=authenticator,
                clock=time.time,
            ),
            agents=AgentApi(
                authenticator=authenticator,
                enrolments=enrolments,
                tokens=enrolment_tokens,
                endpoint=endpoint,
                keys=keys,
            ),
            certificates=CertificateApi(
                authenticator=authenticator,
                certificates=self._certificates,
                authority=self.certificate.authority,
                statuses=lambda: self._front_certificates.statuses(self.loop.published),
                retry=partial(self.acme.retry, others=self._front_certificates.retry),
            ),
            access=self._access.api(authenticator),
            rotations=rotation_api(self, authenticator),
            stream=AgentStream(self._hub, authenticator),
            webhooks=WebhookEndpoint(self._webhook_secret, self.loop.wake, self._metrics.webhook),
            probes=Probes(self, self._metrics),
            version=importlib.metadata.version("cloudlunacy"),
            others=(
                install_api(),
                self.rollouts.api(authenticator),
                measure_api(self, self._settings, authenticator),
                self._deployments.api(authenticator),
                asked_routes(
                    self,
                    authenticator,
                    issuer=self.issuer,
                    store=self._store,
                    committer=self._committer,
                    tracker=self._tracker,
                    open_sealed=keys.opener.open,
                ),
                self.health.api(authenticator),
                self.traffic.api(authenticator),
                *change_apis(self, self.changes, authenticator),
                self.feeding.api(authenticator, time.time),
                self.notices.api(authenticator),
                *self._access.login(site),
                *pages(self, site),
            ),
            handlers=audited(site.handlers(), self._access.audit),
        )
        return make_server(application, self.certificate.context)

    def _note_gone(self, names: frozenset[str]) -> None:
        self._access.published(names)

    async def _note_settled(self, entry: OutboxEntry, settled: Settled) -> None:
        if settled.outcome == PROPOSED:
            await self.forges.pushed(composer(self._settings.git.branch)(entry))
        if entry.kind == "revocation":
            await self._access.settled(entry, settled)
            return
        if entry.kind == "change":
            await self.changes.settled(entry, settled)
            return
        if entry.kind == "route":
            self.loop.wake()
            await self._store.append(event_of(entry, settled, time.time()))
            return
        self._metrics.enrolment(settled.outcome)
        said = entry.payload
        self._certificates.note(
            str(said["name"]), Enrolled(str(said["token"]), str(said["thumbprint"]), entry.accepted_at)
        )
        await recorder(self._store, self.loop.wake)(entry, settled)

    def _count_state(self, record: Record, state: RevisionState) -> None:
        self._metrics.revision(state)
        self._access.judged(record)
        self.forges.judged(record)
        if record.revision == self._tracker.newest:
            waits = state in ("Progressing", "Held", "Failed")
            self._metrics.waiting_since(record.stages.get("fetched", time.time()) if waits else None)
            self._metrics.newest(state)
        self.traces.judged(record, state)

    def _webhook_secret(self) -> bytes | None:
        path = self._settings.webhook_secret_file
        try:
            return path.read_bytes().strip() if path is not None else None
        except OSError:
            log.exception("the webhook secret cannot be read", path=str(path))
            return None
