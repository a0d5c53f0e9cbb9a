"""When a phase of a rotation is left, and what it waits for until then."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from reconciler.errors import Refused
from reconciler.pki.rotation import (
    DEFAULTS,
    PHASES,
    SUBJECTS,
    Facts,
    Go,
    Phase,
    Rotation,
    Stay,
    Subject,
    after,
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
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
PRESENT, GONE = frozenset({"vps-1", "vps-2"}), frozenset({"vps-9"})


def at(subject: Subject, phase: Phase, *, tainted: bool = False) -> Rotation:
    return enter(begin({}, subject, NOW, tainted=tainted), phase, NOW)


def verdict(rotation: Rotation, facts: Facts | None = None, later: timedelta = timedelta()) -> Stay | Go:
    return decide(rotation, facts or Facts(), NOW + later)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_each_goes_through_all_phases_in_order(subject: Subject) -> None:
    """With nobody to wait for, time alone brings each to its end."""
    rotation, now, seen = begin({}, subject, NOW), NOW, ["prepare"]
    while (found := decide(rotation, Facts(), now)) != Go(None):
        now += HOUR
        if isinstance(found, Go):
            assert found.phase is not None
            rotation = enter(rotation, found.phase, now)
            seen.append(found.phase)
        assert now < NOW + 30 * DAY

    assert tuple(seen) == PHASES


@pytest.mark.parametrize("subject", ["root", "desired"])
def test_agents_that_are_there_are_waited_for(subject: Subject) -> None:
    """Until the deadline, and the names are said."""
    rotation = at(subject, "distribute")
    found = verdict(rotation, Facts(behind=PRESENT), 71 * HOUR)

    assert isinstance(found, Stay)
    assert (found.who, found.until) == (("vps-1", "vps-2"), NOW + 72 * HOUR)
    assert verdict(rotation, Facts(behind=PRESENT), 72 * HOUR) == Go("activate")


@pytest.mark.parametrize("subject", ["root", "desired"])
def test_agents_that_are_away_are_waited_for_as_long_as_their_certificate_lives(subject: Subject) -> None:
    """Whoever is away for longer has to enrol again in any case."""
    rotation = at(subject, "distribute")
    found = verdict(rotation, Facts(away=GONE), 23 * HOUR)

    assert isinstance(found, Stay)
    assert (found.who, found.until) == (("vps-9",), NOW + DAY)
    assert verdict(rotation, Facts(away=GONE), DAY) == Go("activate")


@pytest.mark.parametrize("subject", ["root", "desired", "access", "operator"])
def test_a_key_is_known_for_a_while_before_it_signs(subject: Subject) -> None:
    """Caches and copies of the key set are five minutes behind."""
    assert isinstance(verdict(at(subject, "distribute"), later=4 * MINUTE), Stay)
    assert verdict(at(subject, "distribute"), later=5 * MINUTE) == Go("activate")


def test_an_intermediate_needs_nobody_to_know_it() -> None:
    """Verifiers hold roots, and servers present what is between."""
    assert verdict(at("intermediate", "distribute"), Facts(behind=PRESENT)) == Go("activate")


@pytest.mark.parametrize("subject", ["root", "intermediate"])
def test_the_former_authority_stays_until_nothing_of_it_is_in_use(subject: Subject) -> None:
    """Its last certificate was replaced or has ended, or a week is over: what is there then belongs to nobody."""
    waiting = at(subject, "wait")

    for facts in (Facts(in_use_until=NOW + DAY), Facts(behind=frozenset({"front-1"}))):
        assert isinstance(verdict(waiting, facts, 23 * HOUR), Stay)
    assert verdict(waiting, Facts(in_use_until=NOW + DAY), DAY) == Go("remove")
    assert verdict(waiting, Facts()) == Go("remove")
    assert verdict(waiting, Facts(in_use_until=NOW + 90 * DAY), 7 * DAY) == Go("remove")


def test_tokens_of_the_former_key_end_before_it_goes() -> None:
    """Ten minutes and the minute by which clocks may differ."""
    assert isinstance(verdict(at("access", "wait"), later=10 * MINUTE), Stay)
    assert verdict(at("access", "wait"), later=11 * MINUTE) == Go("remove")


@pytest.mark.parametrize("subject", ["access", "desired", "operator"])
def test_what_a_tainted_key_signed_counts_no_more_at_once(subject: Subject) -> None:
    """Nobody waits for tokens to end."""
    assert verdict(at(subject, "wait", tainted=True), Facts(behind=PRESENT, away=GONE)) == Go("remove")


def test_in_an_emergency_only_those_who_are_there_are_waited_for_and_not_for_long() -> None:
    """Ten minutes instead of three days."""
    rotation = at("root", "distribute", tainted=True)

    assert verdict(rotation, Facts(away=GONE)) == Go("activate")
    assert isinstance(verdict(rotation, Facts(behind=PRESENT), 9 * MINUTE), Stay)
    assert verdict(rotation, Facts(behind=PRESENT), 10 * MINUTE) == Go("activate")
    waiting = at("root", "wait", tainted=True)
    assert isinstance(verdict(waiting, Facts(in_use_until=NOW + DAY), 9 * MINUTE), Stay)
    assert verdict(waiting, Facts(in_use_until=NOW + DAY), 10 * MINUTE) == Go("remove")


@pytest.mark.parametrize("phase", PHASES)
def test_what_a_person_has_to_do_is_waited_for_however_long_it_takes(phase: Phase) -> None:
    """And it is said."""
    assert verdict(at("root", phase), Facts(blocked="Sign it."), 1000 * DAY) == Stay("Sign it.")


def test_the_age_identity_waits_for_persons_alone() -> None:
    """Values in git are sealed by people, who take the time that they take."""
    assert [verdict(at("age", phase)) for phase in ("distribute", "wait")] == [Go("activate"), Go("remove")]


# --- beginning ----------------------------------------------------------------------------------------------------


def test_one_of_a_kind_at_a_time() -> None:
    """And none of root and intermediate beside each other, because both replace the intermediate."""
    root, access = begin({}, "root", NOW), begin({}, "access", NOW)
    for known, subject in ((root, "root"), (root, "intermediate"), (access, "access")):
        with pytest.raises(Refused, match="is under way") as caught:
            begin({known.subject: known}, subject, NOW)  # type: ignore[arg-type]
        assert (caught.value.status, caught.value.code) == (409, "rotation-under-way")
    assert begin({"access": access}, "root", NOW).phase == "prepare"


@pytest.mark.parametrize("subject", ["root", "intermediate", "access", "desired", "operator"])
@pytest.mark.parametrize("phase", PHASES)
def test_one_that_is_under_way_may_turn_out_to_be_urgent(subject: Subject, phase: Phase) -> None:
    """In each phase it begins anew: the key that signs by now is the one that others know."""
    known = at(subject, phase)
    urgent = begin({subject: known}, subject, NOW + HOUR, tainted=True, actor="operator:local")

    assert urgent == Rotation(subject, "prepare", NOW + HOUR, NOW + HOUR, 10 * MINUTE, True, "operator:local")


@pytest.mark.parametrize("subject", ["root", "intermediate", "access", "desired", "operator"])
@pytest.mark.parametrize("phase", PHASES)
def test_an_emergency_begins_anew_once_its_key_signs(subject: Subject, phase: Phase) -> None:
    """The key that it brought may be known to others too; before that it is in a hurry already, and that is said."""
    under_way = {subject: at(subject, phase, tainted=True)}
    if phase in ("prepare", "distribute"):
        with pytest.raises(Refused) as caught:
            begin(under_way, subject, NOW, tainted=True)
        assert "in a hurry already" in caught.value.hint
        assert "--taint" not in caught.value.hint
    else:
        assert begin(under_way, subject, NOW, tainted=True).phase == "prepare"


@pytest.mark.parametrize("phase", PHASES)
def test_the_age_identity_is_never_hurried_past_what_people_sealed(phase: Phase) -> None:
    """Beginning anew would forget an identity that values may be sealed to, and nobody but people can mend that."""
    known = at("age", phase)
    if phase in ("prepare", "distribute"):
        assert begin({"age": known}, "age", NOW, tainted=True).phase == phase
    else:
        with pytest.raises(Refused) as caught:
            begin({"age": known}, "age", NOW, tainted=True)
        assert "Bring it to its end" in caught.value.hint


@pytest.mark.parametrize("tainted", [False, True])
@pytest.mark.parametrize("phase", PHASES)
def test_an_emergency_of_the_root_takes_an_intermediate_over(phase: Phase, tainted: bool) -> None:
    """It brings another one itself."""
    under_way = {"intermediate": at("intermediate", phase, tainted=tainted), "access": at("access", "wait")}
    begun = begin(under_way, "root", NOW, tainted=True)  # type: ignore[arg-type]

    assert (begun.phase, ended_by(begun, under_way)) == ("prepare", ("intermediate",))  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", PHASES)
def test_an_emergency_of_the_intermediate_waits_for_no_root(phase: Phase) -> None:
    """A next root that does not sign yet is given up, one that signs goes on beside it."""
    under_way: dict[Subject, Rotation] = {"root": at("root", phase)}
    if phase == "activate":
        with pytest.raises(Refused) as caught:
            begin(under_way, "intermediate", NOW, tainted=True)
        assert "in a moment" in caught.value.hint
        return
    begun = begin(under_way, "intermediate", NOW, tainted=True)
    assert ended_by(begun, under_way) == (("root",) if phase in ("prepare", "distribute") else ())


def test_an_emergency_of_the_root_is_not_given_up_for_its_intermediate() -> None:
    """It brings another one too; whoever has no time for that says so."""
    for phase in ("prepare", "distribute"):
        with pytest.raises(Refused) as caught:
            begin({"root": at("root", phase, tainted=True)}, "intermediate", NOW, tainted=True)
        assert "rotate root --cancel" in caught.value.hint


def test_what_is_usual_ends_nothing_and_is_told_of_the_way_for_emergencies() -> None:
    """The hint names a flag that was not given."""
    under_way = {"intermediate": at("intermediate", "wait")}
    with pytest.raises(Refused) as caught:
        begin(under_way, "root", NOW)  # type: ignore[arg-type]

    assert "--taint" in caught.value.hint
    assert ended_by(begin({}, "root", NOW), under_way) == ()  # type: ignore[arg-type]


def test_the_deadline_may_be_given() -> None:
    """In place of the usual one."""
    assert begin({}, "root", NOW, deadline=HOUR).deadline == HOUR
    assert begin({}, "root", NOW).deadline == DEFAULTS.deadline


def test_what_is_old_enough_is_rotated_by_itself() -> None:
    """What is overdue most comes first; what is under way is not begun again."""
    made: dict[Subject, datetime] = {"access": NOW - 31 * DAY, "desired": NOW - 33 * DAY, "age": NOW - 9000 * DAY}

    assert due(made, {}, NOW) == "desired"
    assert due(made, {"desired": begin({}, "desired", NOW)}, NOW) == "access"
    assert due({"access": NOW - 29 * DAY, "intermediate": NOW - 179 * DAY}, {}, NOW) is None
    assert due({"intermediate": NOW - 180 * DAY}, {}, NOW) == "intermediate"


def test_a_rotation_that_waits_holds_up_no_other_by_itself() -> None:
    """But root and intermediate keep each other from beginning, because both replace the intermediate."""
    made: dict[Subject, datetime] = {"access": NOW - 31 * DAY, "intermediate": NOW - 400 * DAY}

    assert due({"access": NOW - 31 * DAY}, {"age": at("age", "distribute")}, NOW) == "access"
    assert due(made, {"root": at("root", "prepare")}, NOW) == "access"
    assert due({"intermediate": NOW - 400 * DAY}, {"root": at("root", "prepare")}, NOW) is None
    assert due({"root": NOW - 4000 * DAY}, {"intermediate": at("intermediate", "wait")}, NOW) is None


def test_what_was_noted_ahead_of_the_clock_counts_from_now() -> None:
    """So a jump forward and back delays nothing for longer than it would have taken anyway."""
    ahead = enter(begin({}, "access", NOW + 1000 * DAY), "distribute", NOW + 1000 * DAY)

    assert seen_at(ahead, NOW) == replace(ahead, begun=NOW, since=NOW)
    assert verdict(seen_at(ahead, NOW), later=5 * MINUTE) == Go("activate")
    assert seen_at(at("access", "wait"), NOW + DAY) == at("access", "wait")


@pytest.mark.parametrize("subject", SUBJECTS)
def test_it_is_the_same_after_it_was_written_down(subject: Subject) -> None:
    """Every field comes back."""
    rotation = replace(at(subject, "wait", tainted=True), actor="operator:local")

    assert from_json(to_json(rotation)) == rotation


@pytest.mark.parametrize("change", [{"subject": "x"}, {"phase": "x"}, {"begun": "2026-06-01T12:00:00"}, {"since": "x"}])
def test_what_is_no_rotation_is_refused(change: dict[str, str]) -> None:
    """Also a time without its zone."""
    with pytest.raises(ValueError):
        from_json({**to_json(begin({}, "root", NOW)), **change})


def test_the_last_phase_has_none_after_it() -> None:
    """It is the end."""
    assert [after(phase) for phase in PHASES] == [*PHASES[1:], None]
