"""From a push alone an app appears at its host, changes under load without a failed request, and goes back when bad."""

from __future__ import annotations

import re
import subprocess
from typing import Final

import pytest

from tests.integration.served.conftest import Served
from tests.support.parts import require
from tests.support.two_machines import IDLE, Site, app, files_of
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

ROLLS: Final = 4


def test_an_app_appears_and_changes_without_a_failed_request(served: Served) -> None:
    """A push is all: it answers over TLS at its hostname; while clients ask without a pause its image changes again and
    again, and every answer is a good one."""

    def scenario(site: Site) -> None:
        site.one.push(files_of("web", app()))
        site.wait_for_page("version 1")
        load = Load(site)
        try:
            for number in range(ROLLS):
                version = "12"[(number + 1) % 2]
                site.one.push(files_of("web", app(f"web:{version}")), f"Version {version}")
                site.wait_for_page(f"version {version}")
                wait_for(lambda want=f"web:{version}": site.containers() == [("web", want, "running")], 60)
        finally:
            said = load.end()
        assert said.requests > 1000, said.text
        assert (said.bad_answers, said.errors) == (0, 0), f"{said.text}\n{site.trouble()}"

    served(scenario)


class Report:
    """What wrk says at its end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.requests = int(self._number(r"(\d+) requests in"))
        self.bad_answers = int(self._number(r"Non-2xx or 3xx responses: (\d+)"))
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        self.errors = sum(int(part) for part in errors.groups()) if errors is not None else 0

    def _number(self, pattern: str) -> str:
        found = re.search(pattern, self.text)
        return "0" if found is None else found[1]


class Load:
    """Clients that ask for the host of an app over TLS, each the next time as soon as it has its answer."""

    def __init__(self, site: Site, name: str = "web", clients: int = 4) -> None:
        host = f"Host: {site.host(name)}"
        command = [require("wrk"), "-t1", f"-c{clients}", "-d200s", "--timeout", "5s", "-H", host, site.https]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end(self) -> Report:
        """SIGINT lets wrk say what it has counted."""
        self._process.send_signal(2)
        text, _ = self._process.communicate(timeout=20)
        return Report(text)


BAD: Final = [
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
            spec = {"image": "web:2", **change}
            revision = site.one.push(files_of("web", app(**spec)), f"A version that ends as {reason}")
            said = site.one.status_wait(revision, "Failed")["message"]
            assert f"{reason}: " in said
            assert says in said
            assert "The last good version runs on." in said
            assert site.page() == "200 version 1"
            wait_for(lambda: site.containers() == [("web", "web:1", "running")], 20, what="the end of the bad one")

    served(scenario)
