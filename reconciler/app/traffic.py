"""What is published and how much it is asked, put together: figures, views, the API and the pages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from reconciler.desired.view import OpenSecret
from reconciler.pki.authenticator import Authenticator
from reconciler.pki.certificate_pair import CertificatePair
from reconciler.steps.figures import Figures
from reconciler.steps.passing import Published
from reconciler.steps.probing import Probing
from reconciler.steps.rendering import compiled_of
from reconciler.web.application import Part
from reconciler.web.pages.certificate_pages import CertificatePages, CertificateSources
from reconciler.web.pages.kit import Site
from reconciler.web.pages.object_pages import ObjectPages
from reconciler.web.pages.route_pages import RoutePages
from reconciler.web.pages.secret_pages import SecretPages
from reconciler.web.pages.token_pages import TokenPages
from reconciler.web.pages.traffic_pages import TrafficPages
from reconciler.web.traffic_api import TrafficApi
from reconciler.web.traffic_views import TrafficViews
from schemas.certificate_status import CertificateStatus

if TYPE_CHECKING:
    from reconciler.app.serving import Serving


class Traffic:
    """``figures.run()`` is a task of the application."""

    def __init__(self, plane: Serving, open_sealed: OpenSecret) -> None:
        self._plane = plane
        self._published: Callable[[], Published] = lambda: plane.loop.published
        self.figures = Figures(plane._fronts.fronts)  # noqa: SLF001 - the composition root holds them
        self.views = TrafficViews(self._published, compiled_of, self.figures, open_sealed)

    def api(self, authenticator: Authenticator) -> TrafficApi:
        """Return its endpoints."""
        return TrafficApi(authenticator=authenticator, views=self.views)

    def pages(self, site: Site) -> tuple[Part, ...]:
        """Return every part that answers about traffic and the files that it comes from."""
        plane, changes = self._plane, self._plane.changes
        return (
            TrafficPages(site, self.views, changes, self._published),
            RoutePages(site, changes, self._published),
            ObjectPages(site, plane, changes),
            SecretPages(site, changes, self._published),
            CertificatePages(site, self._certificates()),
            TokenPages(site, plane._access.tokens),  # noqa: SLF001
        )

    def _certificates(self) -> CertificateSources:
        plane, store = self._plane, self._plane._store  # noqa: SLF001
        certificates, fronts = plane._front_certificates, plane._fronts.fronts  # noqa: SLF001
        probing = Probing(certificates, fronts, self._published, store)

        def statuses() -> tuple[CertificateStatus, ...]:
            return certificates.statuses(self._published())

        def pair(name: str) -> CertificatePair | None:
            return certificates.pairs.get(name)

        return CertificateSources(
            statuses=statuses,
            pair=pair,
            retry=partial(plane.acme.retry, others=certificates.retry),
            probe=probing.ask,
            events=store,
            published=self._published,
        )
