"""Which parts there are, what each is given, and what the API asks of them together."""

from __future__ import annotations

import re
import socket
import time
from functools import partial
from pathlib import Path
from typing import Final

from reconciler.agents.certificates import AgentCertificates
from reconciler.agents.directory import AgentDirectory
from reconciler.agents.hub import Hub
from reconciler.agents.session import SessionLimits
from reconciler.app.acme import Acme
from reconciler.app.certificate import OwnCertificate
from reconciler.app.changing import is_object
from reconciler.app.deployments import Deployments
from reconciler.app.feeding import Feeding
from reconciler.app.forges import Forges
from reconciler.app.health import Health
from reconciler.app.measuring import Measuring
from reconciler.app.mongodb import MongoDB
from reconciler.app.own_names import connectable, url_of
from reconciler.app.rollouts import RollingOut
from reconciler.app.rotating import rotations_of
from reconciler.app.services import deployment_secrets, service_certificates
from reconciler.app.serving import Serving
from reconciler.app.tracing import Traces
from reconciler.desired.codes import CODES
from reconciler.desired.render import Renderer
from reconciler.errors import Broken
from reconciler.git.mirror import Mirror
from reconciler.git.remote import Remote
from reconciler.git.signatures import SigningKeys
from reconciler.git.write_back import WriteBack
from reconciler.loop import Reconciler
from reconciler.observability.logs import get_logger, revision_by_default
from reconciler.observability.metrics import Metrics
from reconciler.observer import AgentObserver
from reconciler.pki.agent_issuer import AgentIssuer
from reconciler.pki.certificate_store import CertificateStore
from reconciler.pki.keystore import KeyStore
from reconciler.pki.operator_credential import OperatorCredential
from reconciler.pki.private_files import write_private
from reconciler.settings import Settings
from reconciler.status import Tracker
from reconciler.steps.certificates import Certificates
from reconciler.steps.delivery import Delivery
from reconciler.steps.desire import Desire
from reconciler.steps.fronts import Front, Fronts
from reconciler.steps.keeping import Keeper
from reconciler.steps.reading import DocumentReader, parser_fingerprint
from reconciler.steps.rebuilding import Rebuilding
from reconciler.steps.source import Source
from reconciler.store.blobs import BlobCache
from reconciler.store.sqlite import SQLiteStore
from reconciler.traefik.api import TraefikAPI
from reconciler.traefik.binary import find_binary
from reconciler.traefik.default_certificate import load_or_create_default_certificate
from reconciler.traefik.preflight import Preflight
from reconciler.traefik.publish import FrontFile
from reconciler.traefik.templates import load_templates
from reconciler.waking import Waking
from schemas.agent_routes import NAME_PATTERN
from schemas.names import seconds

log = get_logger(__name__)

MISSED_HEARTBEATS: Final = 3
"""After so many an agent counts as gone."""
CA_FILE: Final = "ca.pem"
"""In the data directory: the roots of this authority, for ``curl --cacert`` and whoever else connects."""
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
WRITABLE: Final = re.compile(rf"agents/{_LABEL}\.yaml|routes/{_LABEL}/{NAME_PATTERN}\.yaml")
"""The only files that commits of our own may touch that no person asked for: of agents, and of routes that agents
asked for."""


class Parts(Serving):
    """Everything that ``serve`` runs, made and put together; nothing is under way yet."""

    def __init__(
        self, settings: Settings, store: SQLiteStore, keys: KeyStore, bound: socket.socket, certificate: OwnCertificate
    ) -> None:
        self._settings = settings
        self._store = store
        self._socket = bound
        self.certificate = certificate
        host, self._port = bound.getsockname()[:2]
        self._scheme = "http" if settings.plain_http else "https"
        self.address = url_of(self._scheme, connectable(host), self._port)
        """URL at which this machine reaches this process."""
        self.issuer = settings.public_url or url_of(self._scheme, host, self._port)
        self.recipient = keys.recipient()
        """Whom secrets are to be sealed to, for ``recipients`` in the fleet file."""
        self._metrics = Metrics(problem_codes=frozenset(CODES))
        self._build_git()
        self._build_agents(keys)
        self._build_forges()
        self._build_loop(keys)
        self.server = self._build_web(keys)
        certificate.on_bundle = partial(self._write_trust, keys)
        self._write_trust(keys)

    def _write_trust(self, keys: KeyStore) -> None:
        """Write what commands on this machine need: address, key and roots; and the roots by themselves, for others.

        Raises:
            Broken: when they cannot be written.
        """
        data, ca = self._settings.data, self.certificate.authority.bundle().pem
        trusted = "" if self._settings.plain_http else ca
        try:
            write_private(data / CA_FILE, ca.encode())
            OperatorCredential.write(data, address=self.address, issuer=self.issuer, keys=keys, ca=trusted)
        except OSError as error:
            raise Broken(f"{data} cannot be written: {error.strerror}.") from None

    # --- building -----------------------------------------------------------------------------------------------

    def _build_git(self) -> None:
        git = self._settings.git
        remote = Remote.parse(
            git.repo,
            username=git.username,
            password_file=git.token_file,
            ssh_key=git.ssh_key,
            known_hosts=git.known_hosts,
        )
        self.mirror = Mirror(self._settings.data / "mirror", remote, git.branch)
        self.mirror.keeper.runner.on_finished = self._count_git
        self._write_back = WriteBack(
            self.mirror, allowed=WRITABLE, persons=is_object, record=self._store.put_own_commits
        )

    def _count_git(self, operation: str, seconds: float, failed: bool) -> None:
        self._metrics.git_took(operation, seconds, failed=failed)
        if operation == "push":
            self._metrics.push(failed=failed)

    def _build_agents(self, keys: KeyStore) -> None:
        self._tracker = Tracker(self._store, time.time)
        self._tracker.on_state = self._count_state
        self._observer = AgentObserver(self._tracker, self._store, self._store, self._metrics)
        self.feeding = Feeding(self, self._store, self._tracker, self._observer)
        self.measuring = Measuring(
            self._settings.data,
            state=lambda: self.loop.published.state,
            seen=lambda: self._observer.seen,
            connected=lambda: self._hub.connected,
            silence=lambda: self._session_limits().silence_seconds,
        )
        self.rollouts = RollingOut(
            self._store, self._tracker, self._observer, self._metrics, lambda: self.loop.published
        )
        self._observer.on_heartbeat = self.measuring.measures.heartbeat
        self._observer.on_usage = self.measuring.measures.usage
        self._directory = AgentDirectory()
        self.health = Health(
            self, self._store, self._metrics, self._directory, lambda: self._session_limits().silence_seconds
        )
        self.health.hear(self._observer, self.measuring)
        self._certificates = AgentCertificates(
            AgentIssuer(self.certificate.authority),
            self._directory,
            lambda: self.loop.published.state.fleet,
            self._store,
        )
        self._hub = Hub(
            keys.signer("desired"),
            self._is_authorised,
            self._observer,
            quarantined=self._directory.may_come_back,
            session_limits=self._session_limits,
            certifier=service_certificates(
                self.certificate.authority,
                self._directory,
                lambda: self.loop.published.state.fleet,
                self._store,
            ),
            secrets=deployment_secrets(
                self._directory, lambda: self.loop.published.state, keys.opener.open, self._store
            ),
        )
        self._metrics.messages_of(lambda: self._hub.counters.messages)
        self._deployments = Deployments(self, self._hub, self._store, self._observer, self.health.observing.judge)

    def _build_forges(self) -> None:
        self.traces = Traces(self._settings.otlp_endpoint)
        self.forges = Forges(
            self._settings.forge_file,
            remote=self.mirror.remote.url,
            public_url=self.issuer,
            data=self._settings.data,
            events=self._store,
            statuses=lambda limit: self._tracker.statuses(limit=limit),
        )

    def _session_limits(self) -> SessionLimits:
        """What the fleet in service says of heartbeats, else what ``serve`` was told."""
        fleet = self.loop.published.state.fleet
        interval = fleet.spec.defaults.heartbeat_interval if fleet is not None else None
        beat = seconds(interval) if interval is not None else self._settings.heartbeat_seconds
        return SessionLimits(heartbeat_seconds=beat, silence_seconds=MISSED_HEARTBEATS * beat + 5)

    def _is_authorised(self, name: str, thumbprint: str) -> bool:
        return self._directory.thumbprint(name) == thumbprint and not self._directory.quarantined(name)

    def _build_loop(self, keys: KeyStore) -> None:
        settings, store = self._settings, self._store
        self._cache = BlobCache(settings.data / "cache.db", parser_fingerprint())
        reader = DocumentReader(self.mirror, self._cache, settings.data / "parsing")
        keeper = Keeper(store, reader, Rebuilding(self.mirror, self.mirror.head, reader, keys.opener.open))
        self._preflight = Preflight(find_binary(Path(settings.traefik_binary) if settings.traefik_binary else None))
        renderer = Renderer(load_templates())
        pairs = CertificateStore(settings.data / "keys", self.certificate.vault)
        self._front_certificates = Certificates(
            self.certificate.authority,
            pairs,
            open_sealed=keys.opener.open,
            renderer=renderer,
            events=store,
            own_hosts=lambda: self.certificate.names,
        )
        self.acme = Acme(settings, self.certificate.vault, pairs, events=store, metrics=self._metrics)
        self.mongodb = MongoDB(settings.data, store, self._metrics)
        self._fronts = Fronts(
            [
                Front(f"front-{number}", FrontFile(front.file), TraefikAPI(front.api))
                for number, front in enumerate(settings.fronts, 1)
            ],
            renderer,
            self._preflight,
            keeper,
            keys.opener.open,
            default_certificate=load_or_create_default_certificate(settings.data / "keys"),
            read_back_seconds=settings.read_back_seconds,
            challenge_url=self.acme.url,
            doors=self.mongodb.doors,
            seen=self.health.observing.placements,
        )
        self.acme.connect(self._front_certificates, self._fronts.fronts, lambda: self.loop.published.state)
        self.rotations = rotations_of(
            self, keys, settings, store, self._front_certificates, self._fronts, partial(self._write_trust, keys)
        )
        waking = Waking(settings.poll_seconds)
        signers = SigningKeys(settings.git.allowed_signers, settings.git.gpg_keyring)
        self.loop: Reconciler = Reconciler(
            repository=self.mirror,
            head=self.mirror.head,
            source=Source(self.mirror, signers, self._is_approved, store.own_commit),
            desire=Desire(reader, keys.opener.open, self._is_approved),
            certificates=self._front_certificates,
            fronts=self._fronts,
            delivery=Delivery(
                self._hub,
                self._directory,
                self._note_gone,
                waves=self.rollouts.waves,
                trust=lambda: self.rotations.trust,
            ),
            tracker=self._tracker,
            events=store,
            metrics=self._metrics,
            waking=waking,
            read_back_seconds=settings.read_back_seconds,
        )
        severing, tracker = self.mongodb.severing, self._tracker
        self.health.connect(self.loop, self._fronts, self._hub, severing, tracker=tracker, waking=waking)
        revision_by_default(lambda: self.loop.published.revision)

    async def _is_approved(self, checksum: str) -> bool:
        return await self._store.approval(checksum) is not None
