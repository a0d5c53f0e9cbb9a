"""Pictures: where bars go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from reconciler.web.pages.drawing import waterfall
from schemas.status import STAGES, RevisionStatus, Stage

START = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)


def record(**seconds: float) -> RevisionStatus:
    stages: dict[Stage, datetime | None] = dict.fromkeys(STAGES)
    stages |= {stage: START + timedelta(seconds=at) for stage, at in seconds.items()}  # type: ignore[misc]
    return RevisionStatus(revision="a" * 40, state="Progressing", stages=stages)


def test_each_stage_begins_where_the_one_before_ended() -> None:
    """Bars fill the width, in the order of the way; what was not reached is said and not drawn."""
    drawn = waterfall(record(fetched=0.0, validated=1.0, planned=4.0))
    fetched, validated, planned, rendered, *_ = drawn.bars
    assert (fetched.left, fetched.seconds, validated.seconds, planned.seconds) == (0.0, 0.0, 1.0, 3.0)
    assert (planned.left, validated.left) == (validated.width, 0.0)
    assert planned.left + planned.width <= 100.0
    assert (rendered.seconds, rendered.width) == (None, 0.0)
    assert drawn.text.startswith("fetched 0 ms, validated 1.0 s, planned 3.0 s; 4.0 s in all; not reached: rendered")


def test_a_stage_that_was_reached_earlier_takes_no_time() -> None:
    """After a restart a revision may be loaded before it is fetched anew; no bar has a negative width."""
    drawn = waterfall(record(fetched=5.0, validated=1.0, planned=6.0))
    assert all(bar.width >= 0 and bar.left >= 0 and (bar.seconds or 0) >= 0 for bar in drawn.bars)


def test_no_stage_is_no_picture() -> None:
    """And a sentence all the same."""
    drawn = waterfall(record())
    assert (drawn.seconds, {bar.width for bar in drawn.bars}) == (0.0, {0.0})
    assert drawn.text.startswith("no stage was reached; not reached: fetched")
