"""The agent and the control plane are killed at a hundred moments of roll-outs, with the real parts all around."""

from __future__ import annotations

import random as randomness
import time
from typing import Final

import pytest

from tests.integration.served.conftest import Served
from tests.support.two_machines import AGENT, Forking, Site, app, files_of
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

KILLS: Final = 100
SLOTS: Final = 3
MEANT: Final = 15
"""Actions of roll-outs that there are at least, however busy the machine is; usually it is five times that."""


def test_killed_at_a_hundred_moments_it_ends_as_wanted(served: Served) -> None:
    """Whichever is killed whenever: never two of what there may be one of, in the end what git says, nothing foreign
    touched, and no network left over."""
    seed = randomness.randrange(2**32)
    random = randomness.Random(seed)

    def scenario(site: Site) -> None:
        engine = site.machines.engine
        foreign = engine.start("web:1", "sleep", "1000", options=["--network", "none"])
        before = foreign.state
        wanted = {"web": "web:1", "api": "web:1"}

        def push() -> str:
            files = files_of("web", app(wanted["web"]))
            files |= files_of("api", app(wanted["api"], "api", port=8082, strategy="recreate"))
            return site.one.push(files, f"{wanted}")

        push()
        for _ in range(KILLS):
            if random.random() < 0.4:
                name = random.choice(["web", "api"])
                wanted[name] = random.choice([image for image in ("web:1", "web:2", "web:3") if image != wanted[name]])
                push()
            time.sleep(random.choice([random.uniform(0.0, 0.4), random.uniform(0.0, 1.6)]))  # the moment of the kill
            if random.random() < 0.5:
                site.kill_agent()
                site.start_agent(wait=False)
            else:
                site.one.kill()
                site.one.start(wait=False)
            there = site.containers()
            assert len([one for one in there if one[0] == "api" and one[2] == "running"]) <= 1, f"seed {seed}: {there}"
            assert all(len([one for one in there if one[0] == name]) <= SLOTS for name in wanted), f"seed {seed}"
        site.one.wait_until_up()
        site.one.wait_connected(AGENT, deadline=90)
        wanted["web"] = "web:1" if wanted["web"] == "web:2" else "web:2"
        revision = push()
        record = site.one.status_wait(revision, "Converged", deadline=90)
        assert record["state"] == "Converged"
        for name, image in wanted.items():
            site.wait_for_page(f"version {image.rpartition(':')[2]}", name)
        site.wait_for_containers(*((name, image, "running") for name, image in wanted.items()))
        assert foreign.state == before, f"seed {seed}"
        done = site.one.agent_log(AGENT).count("deployment shop/")
        assert done >= MEANT, f"only {done} actions were there to be killed in, seed {seed}"
        wait_for(lambda: site.networks() == 2, 20, what=f"two networks with seed {seed}")

    try:
        served(scenario, kind=Forking)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
