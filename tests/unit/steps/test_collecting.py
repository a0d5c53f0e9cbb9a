"""Garbage in cycles is freed, although most of what lives is not walked."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from reconciler.steps.collecting import WALK_SECONDS, Collector, collector_paused


class Node:
    """Refers to itself, as a connection and its task do."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    """Leave the collector as it was."""
    gc.collect()
    yield
    gc.unfreeze()


class Clock:
    """Each look at it takes ``step`` seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.step = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@contextmanager
def collector(clock: Clock) -> Iterator[Collector]:
    """One that hears of every walk."""
    one = Collector(clock)
    gc.callbacks.append(one.noted)
    try:
        yield one
    finally:
        gc.callbacks.remove(one.noted)


def test_what_a_long_walk_left_alive_is_not_walked_again() -> None:
    """A short one changes nothing."""
    clock = Clock()
    with collector(clock):
        kept = [Node()]
        gc.collect()
        assert any(one is kept[0] for one in gc.get_objects())
        clock.step = 1.0
        gc.collect()
        assert not any(one is kept[0] for one in gc.get_objects())


def test_what_becomes_garbage_after_a_long_walk_is_freed_within_the_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the walks in between, which do not see it."""
    monkeypatch.setattr("reconciler.steps.collecting.BULK", 10**9)  # the tests' own objects are many
    clock = Clock()
    with collector(clock) as one:
        node = Node()
        gone = weakref.ref(node)
        clock.step = 1.0
        gc.collect()
        del node
        gc.collect()
        assert gone() is not None
        assert not one.walk_when_due()
        clock.now += WALK_SECONDS
        assert one.walk_when_due()
        assert gone() is None
        assert not one.walk_when_due()


def test_everything_is_walked_when_there_is_much_more_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """So what is left by connections that come and go is bounded by a share of what there is."""
    monkeypatch.setattr("reconciler.steps.collecting.BULK", 10_000)
    clock = Clock()
    clock.step = 1.0
    with collector(clock) as one:
        gc.collect()
        assert one.walk_when_due()
        kept = [Node() for _ in range(10_000)]
        gc.collect()
        assert not one.walk_when_due()  # a small share
        monkeypatch.setattr("reconciler.steps.collecting.GROWTH", 0.0)
        assert one.walk_when_due()
        assert kept


def test_nothing_is_collected_in_a_pause() -> None:
    """However deep it is nested; afterwards the collector works as before."""
    with collector_paused():
        with collector_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
