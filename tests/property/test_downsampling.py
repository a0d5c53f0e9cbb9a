"""Downsampling conserves number, sum, smallest and largest, in whatever order and by whatever steps it is done."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.store.downsampling import (
    MAX_POINTS,
    TIERS,
    Bucket,
    Points,
    Series,
    asked,
    decode,
    encode,
    folded,
    gathered,
    merge,
)

TIMES = st.floats(min_value=1.7e9, max_value=1.7e9 + 30_000)
WHOLE = st.integers(min_value=-(10**9), max_value=10**9).map(float)
SAMPLES = st.lists(st.tuples(TIMES, WHOLE), max_size=80)


def total(points: Points) -> Bucket | None:
    found: Bucket | None = None
    for one in points.values():
        found = one if found is None else found.with_(one)
    return found


@given(SAMPLES)
def test_every_tier_says_the_same_of_all_samples(samples: list[tuple[float, float]]) -> None:
    """Number, sum, smallest, largest and mean of the whole are the samples' at each resolution."""
    points = gathered(samples, TIERS[0].step)
    for tier in TIERS:
        points = folded(points, tier.step)
        values = [value for _, value in samples]
        expected = Bucket(len(values), sum(values), min(values), max(values)) if values else None
        assert total(points) == expected
        assert all(start % tier.step == 0 for start in points)
        assert all(one.low <= one.mean <= one.high for one in points.values())


@given(SAMPLES)
def test_folding_twice_is_folding_once(samples: list[tuple[float, float]]) -> None:
    """A coarse bucket is the same from the finest as from those between."""
    finest = gathered(samples, TIERS[0].step)
    assert folded(folded(finest, TIERS[1].step), TIERS[2].step) == folded(finest, TIERS[2].step)
    assert folded(finest, TIERS[2].step) == gathered(samples, TIERS[2].step)


@given(SAMPLES, st.integers(min_value=0, max_value=80))
def test_parts_that_are_written_apart_become_one(samples: list[tuple[float, float]], cut: int) -> None:
    """Whatever was gathered before a restart and after it is what would have been gathered without one."""
    first: Series = {"load": gathered(samples[:cut], 10)}
    merge(first, {"load": gathered(samples[cut:], 10)})
    assert first["load"] == gathered(samples, 10)


@given(st.lists(st.tuples(TIMES, st.floats(allow_nan=False, min_value=-1e18, max_value=1e18)), max_size=30))
def test_a_row_reads_as_it_was_written(samples: list[tuple[float, float]]) -> None:
    """Every number survives exactly, and metrics that nobody asked for are left out."""
    series = {"load": gathered(samples, 60), "memory": gathered(samples, 60)}
    data = encode(series, 1_699_999_200, 60)
    assert decode(data, 1_699_999_200, 60) == series
    assert decode(data, 1_699_999_200, 60, frozenset({"load"})) == {"load": series["load"]}


@given(st.binary(max_size=200))
def test_a_damaged_row_is_a_value_error(data: bytes) -> None:
    """Bytes that nobody wrote are refused in one way."""
    with pytest.raises(ValueError):
        decode(data, 0, 10)


def test_what_no_machine_measures_is_left_out() -> None:
    """Infinities and numbers whose sum would overflow never reach a bucket."""
    samples = [(0.0, math.inf), (1.0, math.nan), (2.0, 1e300), (3.0, 4.0)]
    assert gathered(samples, 10) == {0: Bucket(1, 4.0, 4.0, 4.0)}


@given(
    st.floats(min_value=0, max_value=4e6),
    st.floats(min_value=1, max_value=4e6),
    st.none() | st.integers(min_value=1, max_value=100_000),
)
def test_an_answer_is_bounded_and_never_finer_than_asked(age: float, length: float, step: int | None) -> None:
    """Its step is a multiple of a tier's, at least what was asked for, and its points fit."""
    now = 1.7e9
    since = now - age
    until = min(now, since + length)
    found = asked(since, until, step, now)
    assert found.step % TIERS[found.tier].step == 0
    assert found.step >= (step or 0)
    assert (until - since) / found.step <= MAX_POINTS
    assert found.tier == len(TIERS) - 1 or since >= now - TIERS[found.tier].kept


def test_each_tier_divides_the_next() -> None:
    """So that a row of a coarser tier is made of whole rows of the finer one."""
    for fine, coarse in itertools.pairwise(TIERS):
        assert coarse.step % fine.step == coarse.chunk % fine.chunk == fine.chunk % fine.step == 0
        assert fine.kept >= coarse.chunk
