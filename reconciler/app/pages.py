"""The dashboard, put together: the site, and every page with what it shows."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

from reconciler.package_data import data_directory
from reconciler.pki.authenticator import Authenticator
from reconciler.web.application import Part
from reconciler.web.pages.kit import Site

if TYPE_CHECKING:
    from reconciler.app.serving import Serving


def make_site(authenticator: Authenticator) -> Site:
    """Return what all pages are made with."""
    folder = data_directory("templates") / "dashboard"
    return Site(authenticator=authenticator, folder=folder, version=importlib.metadata.version("cloudlunacy"))


def pages(plane: Serving, site: Site) -> tuple[Part, ...]:  # noqa: ARG001 - pages come
    """Return every part of the dashboard that answers."""
    return (site.statics,)
