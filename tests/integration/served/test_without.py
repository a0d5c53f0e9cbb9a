"""What goes on without the control plane, and without the cable to it."""

from __future__ import annotations

import time
from itertools import groupby

import pytest

from tests.integration.served.conftest import Served
from tests.support.load import Load
from tests.support.sampling import Sampling
from tests.support.two_machines import AGENT, SERVER, Site, app, files_of
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]


def test_an_agent_restarts_without_the_control_plane(served: Served) -> None:
    """While the control plane is away an agent is killed and started: apps run, Traefik serves each request, and what
    somebody removes from the server comes back."""

    def scenario(site: Site) -> None:
        engine = site.machines.engine
        site.one.push({**files_of("web", app()), **files_of("api", app("web:2", "api", port=8082))})
        site.wait_in_service("version 1")
        site.wait_in_service("version 2", "api")
        load = Load(site.https, site.host("web"))
        site.one.kill()
        site.kill_agent()
        site.start_agent(wait=False)
        (removed,) = engine.command("ps", "--quiet", "--filter", "label=io.cloudlunacy.deployment=api").stdout.split()
        engine.command("rm", "--force", removed)
        site.wait_for_page("version 2", "api")
        site.wait_for_containers(("api", "web:2", "running"), ("web", "web:1", "running"))
        site.one.start()
        site.one.wait_connected(AGENT, deadline=90)  # it has been asking for a while, and waits longer each time
        said = load.end()
        assert said.requests > 100, said.text
        assert (said.bad_answers, said.errors) == (0, 0), f"{said.text}\n{site.trouble()}"

    served(scenario)


def test_a_cut_off_agent_is_unknown_and_gets_no_requests(served: Served) -> None:
    """After the time-out its backend is out of Traefik, in one step; once the cable is back it is in again, in one."""

    def scenario(site: Site) -> None:
        site.one.push(files_of("web", app()))
        site.wait_for_page("version 1")
        backend = f"{SERVER}:8081"
        with Sampling(lambda: backend in site.one.published.read_text()) as sampling:
            site.machines.cut()
            wait_for(lambda: not sampling.last, 60, what=f"the end of the backend\n{site.trouble()}")
            site.one.wait_connected(AGENT, connected=False)
            wait_for(lambda: site.page().startswith("503"), 10, what="a quick answer that nobody is there")
            time.sleep(3)  # what flaps would do so meanwhile
            site.machines.mend()
            site.wait_for_page("version 1")
            site.one.wait_connected(AGENT, deadline=60)
            time.sleep(3)
        assert [there for there, _ in groupby(sampling.seen)] == [True, False, True]
        assert site.containers() == [("web", "web:1", "running")]

    served(scenario, options=["--heartbeat", "1"])
