"""Who is told that something needs a person: what is looked at, and how channels are reached."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry, Counter
from pydantic import SecretStr

from reconciler.desired.lookup import SecretUnavailable
from reconciler.desired.view import OpenSecret
from reconciler.errors import CloudLunacyError, Rejected
from reconciler.notifications.apprise_channel import send
from reconciler.notifications.conditions import Condition, Notice
from reconciler.notifications.service import Notifying, Timeline
from reconciler.notifications.webhook_channel import WebhookSender
from reconciler.notifications.wording import cloud_events, text_of, title_of
from reconciler.observability.logs import get_logger
from reconciler.pki.authenticator import Authenticator
from reconciler.status import Tracker
from reconciler.store.notices import SQLiteNotices
from reconciler.store.protocols import Event
from reconciler.web.api import Control
from reconciler.web.notification_api import NotificationApi
from reconciler.web.pages.needs import Need, Standing, needs
from schemas.agent import Agent
from schemas.certificate_status import CertificateStatus
from schemas.notifications import Channel, FleetSecret, Notifications
from schemas.objects import ObjectKey
from schemas.rotation_api import RotationView
from schemas.secret import Secret

log = get_logger(__name__)

RETRY_SECONDS: Final = 30.0
MOST: Final = 10_000
"""Conditions of one sort."""
GRACE_SECONDS: Final = 120.0
"""After a start agents come back, each after a pause of its own; until then nobody is told that they are away."""
_OF_AGENTS: Final = frozenset({"AgentAway", "AgentNotEnrolled", "DeploymentFailing"})
_OF_REVISIONS: Final = frozenset({"RevisionHeld", "RevisionFailed", "RolloutFailed", "RolloutPaused"})
_NOBODY: Final = Notifications()


class Plane(Control, Protocol):
    """:class:`reconciler.app.serving.Serving`."""


@dataclass(frozen=True, slots=True)
class _Looked:
    conditions: Sequence[Condition]
    unjudged: frozenset[str]


class Notices:
    """``certificates`` and ``rotations`` as they stand; ``roots`` (PEM) are the fleet's own."""

    def __init__(
        self,
        plane: Plane,
        data: Path,
        timeline: Timeline,
        *,
        tracker: Tracker,
        certificates: Callable[[], Sequence[CertificateStatus]],
        rotations: Callable[[], Sequence[RotationView]],
        open_sealed: OpenSecret,
        public_url: str,
        roots: Callable[[], str],
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._plane = plane
        self._tracker = tracker
        self._certificates = certificates
        self._rotations = rotations
        self._open = open_sealed
        self._public_url = public_url
        self._clock = clock
        self._began = clock()
        self._webhooks = WebhookSender(roots)
        self._store = SQLiteNotices(data, clock=clock)
        text = "Notices for channels, by what became of them."
        counted = Counter("cloudlunacy_notifications", text, ("outcome",), registry=registry)
        self.notifying = Notifying(
            self._store,
            timeline,
            settings=self._settings,
            look=self._look,
            deliver=self._deliver,
            as_condition=condition_of,
            count=lambda outcome, number: counted.labels(outcome).inc(number),
            clock=clock,
        )

    def api(self, authenticator: Authenticator) -> NotificationApi:
        """Return its endpoints."""
        return NotificationApi(authenticator=authenticator, notifying=self.notifying, clock=self._clock)

    def tasks(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """Return what has to run, by name."""
        return {"notifications": self._run()}

    async def _run(self) -> None:
        """A file that cannot be used keeps nobody from being served; it is tried again."""
        while True:
            try:
                await self._store.open()
                await self.notifying.load()
                break
            except CloudLunacyError as error:
                log.warning("what was told cannot be read yet", error=str(error))
                await self._store.close()
                await asyncio.sleep(RETRY_SECONDS)
        try:
            await self.notifying.run()
        finally:
            await self._store.close()

    def _settings(self) -> Notifications:
        fleet = self._plane.published.state.fleet
        return _NOBODY if fleet is None else fleet.spec.notifications

    async def _look(self) -> _Looked | None:
        plane, published = self._plane, self._plane.published
        now = self._clock()
        newest = await self._tracker.newest_status()
        standing = Standing(
            now=datetime.fromtimestamp(now, UTC),
            ready=plane.ready,
            generation=published.generation,
            newest=newest,
            problems=plane.problems(),
            agents={key.name: one for key, one in published.state.objects.items() if isinstance(one, Agent)},
            connected=plane.connected(),
            seen=dict(plane.observations()),
            certificates=self._certificates(),
            fronts=await plane.fronts(),
            rotations=self._rotations(),
        )
        unjudged = _OF_AGENTS if now - self._began < GRACE_SECONDS else frozenset[str]()
        if newest is None:
            unjudged |= _OF_REVISIONS
        return _Looked(await asyncio.to_thread(_conditions_of, standing), unjudged)

    async def _deliver(self, channel: Channel, notices: Sequence[Notice], message_id: str, dropped: int) -> None:
        if channel.webhook is not None:
            body = cloud_events(notices, message_id=message_id, source=self._public_url)
            secret = self._secret(channel.webhook.secret)
            await self._webhooks.send(channel.webhook.url, secret, body, message_id=message_id, now=self._clock())
        elif channel.apprise is not None:
            fleet = self._plane.published.state.fleet
            title = title_of(fleet.metadata.name if fleet is not None else "CloudLunacy", notices)
            await send(
                self._secret(channel.apprise), title, text_of(notices, public_url=self._public_url, dropped=dropped)
            )

    def _secret(self, named: FleetSecret) -> SecretStr:
        key = ObjectKey("Secret", named.team, named.name)
        found = self._plane.published.state.objects.get(key)
        if not isinstance(found, Secret) or named.key not in found.spec.sealed:
            text = f"The channel's secret, key {named.key} of {key.path}, is not in service."
            raise Rejected(text, reason="ChannelRefused", hint=f"cloudlunacy secret seal writes {key.path}.")
        try:
            return SecretStr(self._open(found.spec.sealed[named.key]))
        except SecretUnavailable as error:
            raise Rejected(f"{key.path} cannot be opened: {error}", reason="ChannelRefused") from None


def condition_of(event: Event) -> Condition:
    """Return what an event of the timeline is about, as something to tell."""
    team = event.subject.split("/")[1] if event.subject.count("/") == 2 else ""
    link = f"/revisions/{event.revision}" if event.revision else f"/events?after={event.id - 1}"
    return Condition(event.type, event.subject, event.severity, event.message, team=team, link=link)


def _conditions_of(standing: Standing) -> list[Condition]:
    return [_condition_of_need(one) for one in needs(standing, shown=MOST)]


def _condition_of_need(one: Need) -> Condition:
    return Condition(one.type, one.subject, one.urgency, one.title, one.text, one.team, one.href)
