"""From a push alone an app appears at its host, changes under load without a failed request, and goes back when bad."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.integration.served.conftest import Served
from tests.support.container_machine import CHECK
from tests.support.load import Load
from tests.support.two_machines import IDLE, Site, app, files_of

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

ROLLS: Final = 4


def test_an_app_appears_and_changes_without_a_failed_request(served: Served) -> None:
    """A push is all: it answers over TLS at its hostname; while clients ask without a pause its image changes again and
    again, and every answer is a good one."""

    def scenario(site: Site) -> None:
        site.one.push(files_of("web", app()))
        site.wait_in_service("version 1")
        load = Load(site.https, site.host("web"))
        try:
            for number in range(ROLLS):
                version = "12"[(number + 1) % 2]
                site.one.push(files_of("web", app(f"web:{version}")), f"Version {version}")
                site.wait_for_page(f"version {version}")
                site.wait_for_containers(("web", f"web:{version}", "running"))
        finally:
            said = load.end()
        assert said.requests > 100, said.text
        assert (said.bad_answers, said.errors) == (0, 0), f"{said.text}\n{site.trouble()}"

    served(scenario)


BAD: Final[list[tuple[dict[str, Any], str, str]]] = [
    ({"image": "127.0.0.1:9/web:9"}, "PullFailed", "image 127.0.0.1:9/web:9 cannot be pulled"),
    ({"command": ["sh", "-c", "echo no database; exit 3"]}, "Exited", "no database"),
    ({"command": IDLE}, "Unhealthy", "Connection refused from / at port 8080"),
]


def test_a_bad_version_goes_back_by_itself_and_says_why(served: Served) -> None:
    """An image that is missing, one that ends, one that is never healthy: the last good version serves on, and the
    status of the revision has the reason and the sentence."""

    def scenario(site: Site) -> None:
        site.one.push(files_of("web", app()))
        site.wait_for_page("version 1")
        for change, reason, says in BAD:
            spec: dict[str, Any] = {"image": "web:2", "healthCheck": CHECK, **change}
            revision = site.one.push(files_of("web", app(**spec)), f"A version that ends as {reason}")
            said = site.one.status_wait(revision, "Failed")["message"]
            assert f"{reason}: " in said
            assert says in said
            assert "The last good version runs on." in said
            assert site.page() == "200 version 1"
            site.wait_for_containers(("web", "web:1", "running"))

    served(scenario)
