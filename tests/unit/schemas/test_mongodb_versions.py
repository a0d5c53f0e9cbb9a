"""Which version of MongoDB may open whose data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.mongodb_versions import Series, follows, next_step, refusal, series_of

VERSIONS = ("4.2", "4.4", "5.0", "6.0", "7.0", "8.0", "8.2", "8.3", "9.0")
ALLOWED = {
    ("4.2", "4.4"), ("4.4", "5.0"), ("5.0", "6.0"), ("6.0", "7.0"), ("7.0", "8.0"), ("8.0", "8.2"), ("8.0", "8.3"),
    ("8.2", "8.3"), ("8.0", "9.0"), ("8.2", "9.0"), ("8.3", "9.0"),
}  # fmt: skip


@pytest.mark.parametrize("held", VERSIONS)
@pytest.mark.parametrize("wanted", VERSIONS)
def test_one_step_forward_and_none_back(held: str, wanted: str) -> None:
    """A release opens its own data and that of the one before it; everything else is refused with what to do."""
    allowed = held == wanted or (held, wanted) in ALLOWED
    found = refusal(held, wanted)
    assert (found is None) is allowed
    if found is not None:
        assert held in found.text
        assert found.hint


def test_patch_levels_are_interchangeable() -> None:
    """Within a series nothing is refused, forward or back."""
    assert refusal("6.0.27", "6.0.5") is refusal("6.0", "6.0.27") is None


def test_the_step_that_is_allowed_is_named() -> None:
    """Who wants too much reads what to write first."""
    found = refusal("5.0.32", "8.0")
    assert found is not None
    assert found.hint == 'Write version: "6.0" first, and go on once it runs.'
    found = refusal("7.0", "6.0")
    assert found is not None
    assert "no way back" in found.text


series = st.builds(Series, st.integers(5, 30), st.sampled_from([0, 2, 3]))


@given(series, series)
def test_the_way_forward_never_ends_in_a_refusal(held: Series, wanted: Series) -> None:
    """Following the hint again and again leads to every later major release, each step being allowed."""
    target = Series(max(held.major, wanted.major), 0)
    while held.major < target.major:
        step = next_step(held)
        assert follows(held, step)
        assert not follows(step, held)
        held = step
    assert held >= target
    assert series_of(f"{held}.17") == held
