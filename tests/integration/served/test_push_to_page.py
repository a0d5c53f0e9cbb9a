"""From a push alone: an app appears at its host, changes under load without a failed request, and goes back when bad."""

from __future__ import annotations

import pytest

from tests.integration.served.conftest import Served
from tests.support.two_machines import Site, app, files_of

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]


def test_an_app_appears_at_its_host(served: Served) -> None:
    """A push is all: the container runs on the agent, and Traefik serves it over TLS at its hostname."""

    def scenario(site: Site) -> None:
        site.one.push(files_of("web", app()))
        site.wait_for_page("version 1")

    served(scenario)
