from __future__ import annotations

from reconciler.agents.admission import LONGEST_WAIT, Admission


def test_a_burst_comes_in_and_then_the_rate_holds() -> None:
    """The burst is let in at once, then one for each interval."""
    admission = Admission(per_second=10, burst=3)
    assert [admission.admit(100.0) is None for _ in range(4)] == [True, True, True, False]
    assert admission.admit(100.11) is None
    assert admission.admit(100.12) is not None


def test_everybody_who_is_refused_gets_another_slot() -> None:
    """Those who came at once are told to come back one after the other, at the rate."""
    admission = Admission(per_second=10, burst=1)
    assert admission.admit(0.0) is None
    waits = [admission.admit(0.0) for _ in range(5)]
    assert [round(wait or 0, 6) for wait in waits] == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_nobody_is_sent_away_for_long() -> None:
    """However many come, the longest wait is bounded."""
    admission = Admission(per_second=1, burst=1)
    waits = [admission.admit(0.0) for _ in range(1000)]
    assert max(wait or 0 for wait in waits) == LONGEST_WAIT
