"""For any facts and any time between looks, a rotation goes forward only, and nobody who can be waited for is lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import Refused
from reconciler.pki.rotation import (
    BEFORE,
    DEFAULTS,
    OF_THE_AUTHORITY,
    PHASES,
    SUBJECTS,
    TOLD_TO_AGENTS,
    Facts,
    Go,
    Rotation,
    Stay,
    Subject,
    begin,
    decide,
    due,
    ended_by,
    enter,
    from_json,
    seen_at,
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


# --- many at once, as they are driven ---------------------------------------------------------------------------------


@dataclass
class Machine:
    """Rotations that are driven as the driver does, with a key for each that signs, one beside it and a former one."""

    now: datetime = NOW
    signing: dict[Subject, int] = field(default_factory=lambda: dict.fromkeys(SUBJECTS, 0))
    under_way: dict[Subject, Rotation] = field(default_factory=dict)
    since: dict[Subject, datetime] = field(default_factory=lambda: dict.fromkeys(SUBJECTS, NOW))

    def begin(self, subject: Subject, *, tainted: bool) -> bool:
        """Whether it was begun; else it is refused."""
        try:
            begun = begin(self.under_way, subject, self.now, tainted=tainted)
        except Refused:
            return False
        for one in ended_by(begun, self.under_way):
            del self.under_way[one]
        self.under_way[subject] = begun
        return True

    def look(self, found: Mapping[Subject, Facts]) -> None:
        self.under_way = {subject: seen_at(one, self.now) for subject, one in self.under_way.items()}
        self.since = {subject: min(one, self.now) for subject, one in self.since.items()}
        if (subject := due(self.since, self.under_way, self.now)) is not None:
            assert self.begin(subject, tainted=False), "what is due can be begun"
        for subject in list(self.under_way):
            self._go_on(subject, found.get(subject, Facts()))

    def _go_on(self, subject: Subject, facts: Facts) -> None:
        while (rotation := self.under_way.get(subject)) is not None:
            verdict = decide(rotation, facts, self.now)
            if isinstance(verdict, Stay):
                return
            if verdict.phase is None:
                del self.under_way[subject]
                return
            if verdict.phase == "activate":
                for one in ("root", "intermediate") if subject == "root" else (subject,):
                    self.signing[one] += 1
                    self.since[one] = self.now
            self.under_way[subject] = enter(rotation, verdict.phase, self.now)


IN_SERVICE: tuple[Subject, ...] = ("root", "intermediate", "access", "desired", "operator")
unblocked = st.builds(Facts, behind=names, away=names, in_use_until=st.none())
histories = st.lists(
    st.tuples(
        st.sampled_from(SUBJECTS),
        st.sampled_from(["look", "begin", "taint"]),
        facts,
        st.integers(0, 6000).map(lambda minutes: timedelta(minutes=minutes)),
    ),
    max_size=30,
)


def driven(history: list[tuple[Subject, str, Facts, timedelta]]) -> Machine:
    machine = Machine()
    for subject, what, found, passed in history:
        machine.now += passed
        if what != "look":
            machine.begin(subject, tainted=what == "taint")
        machine.look({subject: found})
    return machine


@given(histories, st.sampled_from(IN_SERVICE), st.dictionaries(st.sampled_from(SUBJECTS), unblocked))
def test_a_key_that_others_know_signs_nothing_after_the_distribution_of_the_emergency(
    history: list[tuple[Subject, str, Facts, timedelta]], subject: Subject, found: dict[Subject, Facts]
) -> None:
    """Whatever was under way when it was told of, and whoever is behind: ten minutes, and another key signs."""
    machine = driven(history)
    known = machine.signing[subject]
    if not machine.begin(subject, tainted=True):  # then an emergency that was told of before replaces it
        urgent = [machine.under_way[one] for one in (subject, "root") if one in machine.under_way]
        assert any(one.tainted and one.phase in BEFORE for one in urgent)
    for _ in range(2):
        machine.look(found)
        machine.now += DEFAULTS.hurry
    machine.look(found)

    assert machine.signing[subject] > known


@given(
    histories,
    st.integers(1, 5000).map(lambda days: timedelta(days=days)),
    st.dictionaries(st.sampled_from(IN_SERVICE), unblocked),
)
def test_a_clock_that_jumps_forward_and_back_delays_nothing_beyond_its_own_step(
    history: list[tuple[Subject, str, Facts, timedelta]], jump: timedelta, found: dict[Subject, Facts]
) -> None:
    """After it each phase lasts no longer than it would have without, and what is old is begun in time."""
    machine = driven(history)
    machine.now += jump
    machine.look(found)
    machine.now -= jump
    machine.look({})
    for one in machine.under_way.values():
        assert one.since <= machine.now
        verdict = decide(one, Facts(), machine.now)
        longest = max(DEFAULTS.deadline, DEFAULTS.lasts.get(one.subject, timedelta()))
        assert isinstance(verdict, Go) or verdict.until is None or verdict.until <= machine.now + longest
    before = dict(machine.signing)
    machine.now += timedelta(days=30)
    for _ in range(10):  # each look begins one
        machine.now += timedelta(hours=12)
        machine.look({})

    assert all(machine.signing[subject] > before[subject] for subject in ("access", "desired", "operator"))


@given(histories, st.sampled_from(SUBJECTS))
def test_one_that_waits_for_a_person_holds_up_no_unrelated_one(
    history: list[tuple[Subject, str, Facts, timedelta]], waiting: Subject
) -> None:
    """Within two months every other is rotated by its age, but for root and intermediate beside each other."""
    machine = driven(history)
    machine.begin(waiting, tainted=False)
    related = OF_THE_AUTHORITY if waiting in OF_THE_AUTHORITY else {waiting}
    before = dict(machine.signing)
    for _ in range(75):
        machine.now += timedelta(days=1)
        machine.look({waiting: Facts(blocked="Sign it.")})

    for subject in ("access", "desired", "operator"):
        assert subject in related or machine.signing[subject] > before[subject]
