"""How often agents say that they are there: one number, from the fleet, else from the command line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from reconciler.app.building import MISSED_HEARTBEATS, Parts
from reconciler.desired.state import State
from tests.support.documents import fleet, problems_of, state_of


def limits(state: State) -> tuple[float, float]:
    parts = SimpleNamespace(
        loop=SimpleNamespace(published=SimpleNamespace(state=state)), _settings=SimpleNamespace(heartbeat_seconds=7.0)
    )
    found = Parts._session_limits(cast("Any", parts))
    return found.heartbeat_seconds, found.silence_seconds


@pytest.mark.parametrize(("defaults", "beat"), [({"heartbeatInterval": "2m"}, 120.0), ({}, 7.0)])
def test_the_fleet_in_service_says_how_often(defaults: dict[str, str], beat: float) -> None:
    """What the command line says counts where the fleet says nothing; who misses a few counts as gone."""
    assert limits(state_of({"fleet.yaml": fleet(defaults=defaults)})) == (beat, MISSED_HEARTBEATS * beat + 5)


def test_before_there_is_a_fleet_the_command_line_counts() -> None:
    """An agent may connect before the first publication."""
    assert limits(State())[0] == 7.0


@pytest.mark.parametrize("interval", ["500ms", "61m", "9999h"])
def test_what_would_flood_or_hide_is_refused(interval: str) -> None:
    """A heartbeat is at least a second and at most an hour apart."""
    files = {"fleet.yaml": fleet(defaults={"heartbeatInterval": interval})}
    (problem,) = problems_of(state_of(files), files)[:1]
    assert f"heartbeatInterval {interval} is not between 1s and 1h" in problem.message
