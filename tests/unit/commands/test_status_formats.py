"""How a convergence record is written for a terminal."""

from __future__ import annotations

import datetime as dt

from reconciler.commands.status_formats import rollout_lines, stage_line
from schemas.status import AgentRollout, DeploymentRollout, RolloutStep

NOON = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)


def test_a_stage_that_came_before_the_one_above_it_says_only_when() -> None:
    """Agents are told before a slow front has loaded; a negative time would be read as a mistake."""
    later = NOON + dt.timedelta(milliseconds=38)
    assert stage_line("pushed", later, NOON) == "  pushed       12:00:00.038000  +38 ms"
    assert stage_line("pushed", NOON, later) == "  pushed       12:00:00.000000"
    assert stage_line("fetched", NOON, None) == "  fetched      12:00:00.000000"


def test_a_roll_out_is_shown_with_the_steps_of_each_agent() -> None:
    """In the words of the agents' reports; what there was no room for is counted."""
    steps = tuple(
        RolloutStep(at=NOON + dt.timedelta(seconds=at), state=state, reason=reason)
        for at, state, reason in ((0, "Progressing", "Starting"), (4, "Applied", "Running"))
    )
    agents = {"vps-1": AgentRollout(state="done", steps=steps), "vps-2": AgentRollout(state="waiting")}
    rollout = DeploymentRollout(state="Paused", message="paused by jane", begun=NOON, agents=agents, left_out=3)
    assert list(rollout_lines("shop/web", rollout)) == [
        "  rollout shop/web  Paused: paused by jane",
        "    vps-1                done      Starting 12:00:00, Running 12:00:04",
        "    vps-2                waiting",
        "    and 3 more agent(s)",
    ]
