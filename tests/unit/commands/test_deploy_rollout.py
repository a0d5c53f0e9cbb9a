"""What ``cloudlunacy deploy status`` shows, and when it stops to wait."""

from __future__ import annotations

import datetime as dt

import pytest

from reconciler.commands.deploy_rollout import lines, wait
from reconciler.errors import Transient
from schemas.rollout_api import RolloutOnAgent, RolloutStatus

NOON = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
NEW, OLD = "sha256:" + "b" * 64, "sha256:" + "a" * 64
STATUS = RolloutStatus(
    team="shop",
    name="web",
    state="Failed",
    message="vps-1 could not apply it: Exited",
    revision="c" * 40,
    version=NEW,
    max_unavailable=1,
    agents=(
        RolloutOnAgent(
            agent="vps-1", place="failed", version=NEW, state="Failed", reason="Exited", message="It ended.", since=NOON
        ),
        RolloutOnAgent(agent="vps-2", place="waiting", version=OLD, state="Applied", reason="Running"),
        RolloutOnAgent(agent="vps-3", place="waiting"),
    ),
)


def test_each_agent_is_a_line_with_version_and_step() -> None:
    """The newest version is called so; an older one by its digest."""
    assert list(lines(STATUS)) == [
        "shop/web  Failed  (revision cccccccccccc)",
        "  vps-1 could not apply it: Exited",
        "  version sha256:bbbbbbbbbbbb, on at most 1 agent(s) at once",
        "  vps-1                failed    newest              Exited since 2026-06-01 12:00:00: It ended.",
        "  vps-2                waiting   sha256:aaaaaaaaaaaa Running",
        "  vps-3                waiting   none                Unknown",
    ]


def test_a_pause_that_holds_nothing_up_yet_is_told() -> None:
    """Else somebody wonders why the next commit does nothing."""
    paused = STATUS.model_copy(update={"state": "Done", "message": "", "agents": (), "paused_by": "jane"})
    assert "  paused by jane: the next change reaches no agent" in list(lines(paused))


def test_waiting_ends_when_it_is_decided_and_outlives_a_restart() -> None:
    """Nobody answers for a moment; then it is on its way; then it is done."""
    on_its_way, done = (STATUS.model_copy(update={"state": state}) for state in ("Progressing", "Done"))
    answers: list[Transient | RolloutStatus] = [Transient("away"), on_its_way, done, on_its_way]

    def ask() -> RolloutStatus:
        answer = answers.pop(0)
        if isinstance(answer, Transient):
            raise answer
        return answer

    assert wait(ask, 30, show_progress=False) is done
    assert wait(ask, 0, show_progress=False) is on_its_way


def test_nobody_who_answers_is_said_at_the_end() -> None:
    """The wait has an end."""

    def ask() -> RolloutStatus:
        raise Transient("away")

    with pytest.raises(Transient):
        wait(ask, 0, show_progress=False)
