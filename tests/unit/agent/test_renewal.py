"""When a certificate is renewed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.renewal import EARLIEST, LATEST, Life, renew_at, standing

DAY = 86_400.0
TIMES = st.floats(min_value=0, max_value=1e10)
SHARES = st.floats(min_value=0, max_value=1, exclude_max=True)


@given(TIMES, st.floats(min_value=1, max_value=1e9), SHARES)
def test_a_renewal_is_at_half_the_life(begins: float, seconds: float, random: float) -> None:
    """Whatever the life and the draw: between four and six tenths of it, so never after its end."""
    life = Life(begins, begins + seconds)
    due = renew_at(life, random)
    slack = 1e-5  # of floats as large as a POSIX time
    assert begins + EARLIEST * seconds - slack <= due <= begins + LATEST * seconds + slack
    assert due < life.ends


@given(TIMES, TIMES, SHARES)
def test_a_life_that_ends_before_it_begins_is_due_at_once(begins: float, ends: float, random: float) -> None:
    """A clock that was wrong when the certificate came puts nothing off beyond its beginning."""
    due = renew_at(Life(begins, ends), random)
    assert due <= max(begins, ends)


def test_agents_that_enrolled_together_part() -> None:
    """Draws spread renewals over a fifth of the life."""
    life = Life(0.0, DAY)
    assert renew_at(life, 0.9999) - renew_at(life, 0.0) == pytest.approx(DAY / 5, rel=0.01)


@pytest.mark.parametrize(
    ("life", "now", "expected"),
    [
        (None, 0.0, "missing"),
        (Life(0, 100), 0.0, "good"),
        (Life(0, 100), 49.9, "good"),
        (Life(0, 100), 50.0, "due"),
        (Life(0, 100), 99.9, "due"),
        (Life(0, 100), 100.0, "ended"),
        (Life(200, 100), 150.0, "ended"),
    ],
)
def test_how_it_stands(life: Life | None, now: float, expected: str) -> None:
    """Missing, good until it is due, due until it ends."""
    assert standing(life, 50.0, now) == expected
