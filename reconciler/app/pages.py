"""The dashboard, put together: the site, and every page with what it shows."""

from __future__ import annotations

import importlib.metadata
import time
from typing import TYPE_CHECKING

from reconciler.app.agent_pages import agent_pages
from reconciler.app.rotating import rotation_views
from reconciler.package_data import data_directory
from reconciler.pki.authenticator import Authenticator
from reconciler.web.application import Part
from reconciler.web.approving import Approving
from reconciler.web.pages.api_pages import ApiPages
from reconciler.web.pages.events import EventsPage
from reconciler.web.pages.kit import Site
from reconciler.web.pages.overview import OverviewPage
from reconciler.web.pages.revision_views import QuotedLines
from reconciler.web.pages.revisions import RevisionPages

if TYPE_CHECKING:
    from reconciler.app.serving import Serving


def make_site(authenticator: Authenticator) -> Site:
    """Return what all pages are made with."""
    folder = data_directory("templates") / "dashboard"
    return Site(authenticator=authenticator, folder=folder, version=importlib.metadata.version("cloudlunacy"))


def pages(plane: Serving, site: Site) -> tuple[Part, ...]:
    """Return every part of the dashboard that answers."""
    store, tracker = plane._store, plane._tracker  # noqa: SLF001 - the composition root holds them

    return (
        site.statics,
        OverviewPage(
            site=site,
            control=plane,
            tracker=tracker,
            certificates=lambda: plane._front_certificates.statuses(plane.loop.published),  # noqa: SLF001
            rotations=lambda: rotation_views(plane),
        ),
        RevisionPages(
            site=site,
            control=plane,
            tracker=tracker,
            approving=Approving(control=plane, tracker=tracker, approvals=store, events=store, clock=time.time),
            lines=QuotedLines(plane.mirror),
            changes=plane.changes,
        ),
        EventsPage(site=site, events=store),
        ApiPages(site=site),
        *plane.traffic.pages(site),
        *agent_pages(plane, site),
    )
