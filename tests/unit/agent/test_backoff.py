from __future__ import annotations

from agent.backoff import Backoff


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    """Each failure doubles the longest pause, until it is as long as it may be."""
    backoff = Backoff(base=0.5, cap=4.0)
    assert [backoff.next(1.0) for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_the_jitter_is_full() -> None:
    """Any pause down to nothing is possible, so a fleet does not come back in step."""
    assert [Backoff().next(random) for random in (0.0, 0.25, 0.5)] == [0.0, 0.125, 0.25]


def test_what_was_asked_for_is_the_least() -> None:
    """The jitter comes on top of the pause that the other side asked for."""
    assert [Backoff(base=2.0).next(random, at_least=10.0) for random in (0.0, 0.5)] == [10.0, 11.0]


def test_only_what_lasts_counts_as_success() -> None:
    """A connection that breaks at once does not start the back-off anew; one that lasted does."""
    backoff = Backoff(base=1.0, stable=60.0)
    backoff.next(1.0)
    backoff.succeeded(59.0)
    assert backoff.next(1.0) == 2.0
    backoff.succeeded(60.0)
    assert backoff.next(1.0) == 1.0


def test_a_thousand_failures_overflow_nothing() -> None:
    """Days without a control plane leave the pause at its cap."""
    backoff = Backoff(base=0.5, cap=60.0)
    assert [backoff.next(1.0) for _ in range(5000)][-1] == 60.0
