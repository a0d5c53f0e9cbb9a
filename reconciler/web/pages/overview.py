"""``GET /``: the fleet at a glance, what needs a person, and the last revisions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from reconciler.status import Tracker
from reconciler.web.api import Control
from reconciler.web.endpoint import Endpoint
from reconciler.web.pages.kit import Site
from reconciler.web.pages.needs import SOON, Standing, needs
from schemas.agent import Agent
from schemas.api import FrontStatus
from schemas.certificate_status import CertificateStatus
from schemas.rotation_api import RotationView

REVISIONS: Final = 8
FRONT_SECONDS: Final = 2.0
"""How long a front's Traefik may take before the page says that it does not answer."""


class OverviewPage:
    """The page; ``endpoints()`` is the table."""

    def __init__(
        self,
        *,
        site: Site,
        control: Control,
        tracker: Tracker,
        certificates: Callable[[], Sequence[CertificateStatus]] = tuple,
        rotations: Callable[[], Sequence[RotationView]] = tuple,
    ) -> None:
        self._site = site
        self._control = control
        self._tracker = tracker
        self._certificates = certificates
        self._rotations = rotations

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (Endpoint("GET", "/", "Overview", self.overview, "read", page=True),)

    async def overview(self, request: Request) -> Response:
        """How everything stands; the cost grows with the fleet by a look at each agent and no more."""
        identity = self._site.caller(request)
        control, published = self._control, self._control.published
        agents = {key.name: one for key, one in published.state.objects.items() if isinstance(one, Agent)}
        presence = Counter(control.presence_of(name) for name in agents)
        now = datetime.fromtimestamp(self._site.clock(), UTC)
        certificates, fronts = tuple(self._certificates()), await self._fronts()
        standing = Standing(
            now=now,
            ready=control.ready,
            generation=published.generation,
            newest=await self._tracker.newest_status(),
            problems=control.problems(),
            agents=agents,
            connected=control.connected(),
            seen=control.observations(),
            certificates=certificates,
            fronts=fronts,
            rotations=tuple(self._rotations()),
        )
        problems = control.problems()
        return await self._site.render(
            request,
            identity,
            "overview.html.j2",
            published=published,
            kinds=Counter(key.kind for key in published.state.objects),
            agents=len(agents),
            presence=presence,
            kept_out=len({one.file for one in problems if one.severity == "error"}),
            ending=sum(_ends_soon(one, now) for one in certificates),
            certificates=len(certificates),
            fronts=fronts,
            needs=needs(standing),
            revisions=await self._tracker.statuses(limit=REVISIONS),
        )

    async def _fronts(self) -> tuple[FrontStatus, ...]:
        try:
            async with asyncio.timeout(FRONT_SECONDS):
                return await self._control.fronts()
        except TimeoutError:
            return (FrontStatus(name="Traefik", file="", message=f"No answer within {FRONT_SECONDS:g} s."),)


def _ends_soon(one: CertificateStatus, now: datetime) -> bool:
    is_short = one.not_before is not None and one.not_after is not None and one.not_after - one.not_before < SOON * 2
    margin = timedelta(0) if is_short else SOON
    return one.state == "Expired" or (one.not_after is not None and one.not_after - now < margin)
