"""For any facts and any time between looks, a rotation goes forward only, and nobody who can be waited for is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from reconciler.pki.rotation import (
    DEFAULTS,
    PHASES,
    SUBJECTS,
    TOLD_TO_AGENTS,
    Facts,
    Go,
    Rotation,
    Stay,
    begin,
    decide,
    enter,
    from_json,
    to_json,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
names = st.frozensets(st.sampled_from(["vps-1", "vps-2", "front-1"]))
facts = st.builds(
    Facts,
    blocked=st.sampled_from(["", "", "", "Sign it."]),
    behind=names,
    away=names,
    in_use_until=st.one_of(st.none(), st.integers(-100, 2000).map(lambda hours: NOW + timedelta(hours=hours))),
)
looks = st.lists(
    st.tuples(facts, st.integers(-2880, 6000).map(lambda minutes: timedelta(minutes=minutes))), max_size=40
)
rotations = st.builds(
    lambda subject, tainted: begin({}, subject, NOW, tainted=tainted), st.sampled_from(SUBJECTS), st.booleans()
)


@given(rotations, looks)
def test_it_goes_forward_one_phase_at_a_time(rotation: Rotation, seen: list[tuple[Facts, timedelta]]) -> None:
    """Whatever happens, also when it was written down and read again between any two looks."""
    now, at = NOW, 0
    for found, passed in seen:
        now += passed
        verdict = decide(from_json(to_json(rotation)), found, now)
        if isinstance(verdict, Stay):
            assert verdict.why
            continue
        at += 1
        assert verdict.phase == (PHASES[at] if at < len(PHASES) else None)
        if verdict.phase is None:
            return
        rotation = enter(rotation, verdict.phase, now)


@given(rotations, facts, st.integers(0, 10_000).map(lambda minutes: timedelta(minutes=minutes)))
def test_nobody_is_left_behind_before_the_deadline(rotation: Rotation, found: Facts, passed: timedelta) -> None:
    """What agents verify with is not used while one that is there does not know it."""
    verdict = decide(enter(rotation, "distribute", NOW), found, NOW + passed)
    if rotation.subject in TOLD_TO_AGENTS and found.behind and passed < rotation.deadline:
        assert isinstance(verdict, Stay)
    if found.away and rotation.subject in TOLD_TO_AGENTS and not rotation.tainted and passed < DEFAULTS.absent:
        assert isinstance(verdict, Stay)


@given(rotations, facts)
def test_only_a_person_can_hold_it_up_for_ever(rotation: Rotation, found: Facts) -> None:
    """After a month every phase is left, whoever is behind."""
    for phase in PHASES:
        verdict = decide(enter(rotation, phase, NOW), found, NOW + timedelta(days=31))
        assert isinstance(verdict, Stay if found.blocked else Go)


@given(rotations, facts, st.integers(0, 10_000).map(lambda minutes: timedelta(minutes=minutes)))
def test_what_is_waited_for_ends_when_it_says(rotation: Rotation, found: Facts, passed: timedelta) -> None:
    """At the time that is told it goes on, or tells of something else that comes later."""
    for phase in PHASES:
        one = enter(rotation, phase, NOW)
        verdict = decide(one, found, NOW + passed)
        if isinstance(verdict, Stay) and verdict.until is not None:
            assert verdict.until > NOW + passed
            then = decide(one, found, verdict.until)
            assert isinstance(then, Go) or (then.until is not None and then.until > verdict.until)
