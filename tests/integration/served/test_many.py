"""Fifty deployments on one agent, from pushes alone."""

from __future__ import annotations

from typing import Final

import pytest

from tests.integration.served.conftest import Served
from tests.support.container_machine import CHECK
from tests.support.two_machines import AGENT, Site, app

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

MANY: Final = 50


def patient(name: str, port: int, *, image: str = "web:1") -> bytes:
    """Return an app that may take its time, for fifty of them start at once."""
    check = {**CHECK, "interval": "2s", "timeout": "10s", "startPeriod": "2m"}
    rollout = {"strategy": "recreate", "deadline": "3m"}
    return app(image, name, port=port, healthCheck=check, rollout=rollout)


def test_a_change_to_one_of_fifty_touches_one(served: Served) -> None:
    """All fifty run; a push that changes one of them leaves the containers of the others as they are."""

    def scenario(site: Site) -> None:
        names = [f"web-{number}" for number in range(MANY)]
        apps = {name: patient(name, 9000 + number) for number, name in enumerate(names)}
        record = site.one.status_wait(
            site.one.push({f"deployments/shop/{name}.yaml": content for name, content in apps.items()}), deadline=200
        )
        assert record["state"] == "Converged", record
        before = site.started()
        assert len(before) == MANY
        changed = patient("web-7", 9007, image="web:2")
        record = site.one.status_wait(site.one.push({"deployments/shop/web-7.yaml": changed}))
        assert record["state"] == "Converged", record
        site.wait_for_containers(*((name, "web:2" if name == "web-7" else "web:1", "running") for name in names))
        after = site.started()
        assert {name for name in after if after[name] != before[name]} == {"web-7"}
        assert AGENT in record["agents"]

    served(scenario)
