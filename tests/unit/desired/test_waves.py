"""Who gets the newest version of a deployment now: rules one by one, then properties over whole roll-outs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.desired.waves import Member, Rule, Wave, next_wave, older_spec, version_of

OLD, NEW, NEWER = "old", "new", "newer"
RULE = Rule(max_unavailable=1, deadline=300.0)
WELL = Member(OLD, "Applied", "Running")
DONE = Member(NEW, "Applied", "Running")


def wave(rule: Rule = RULE, **members: Member) -> Wave:
    return next_wave(NEW, members, rule)


def test_one_agent_after_the_other() -> None:
    """With maxUnavailable 1 the next one has its turn once the one before runs well."""
    assert wave(a=WELL, b=WELL, c=WELL).give == ("a",)
    assert wave(a=Member(NEW), b=WELL, c=WELL).give == ()
    assert wave(a=Member(NEW, "Progressing", "Starting"), b=WELL, c=WELL).give == ()
    assert wave(a=DONE, b=WELL, c=WELL).give == ("b",)
    assert wave(a=DONE, b=DONE, c=DONE).state == "Done"


@pytest.mark.parametrize("reason", ["Restarting", "Unhealthy"])
def test_an_agent_that_ends_again_and_again_holds_the_others_back(reason: str) -> None:
    """Applied says only that the agent did what was wanted."""
    found = wave(a=Member(NEW, "Applied", reason), b=WELL)
    assert (found.give, found.state) == ((), "Progressing")
    assert found.message == "waiting until fewer agents are without it; 1 to come"
    assert wave(a=Member(NEW, "Applied", reason), b=DONE).state == "Done"


def test_a_failure_stops_it_and_says_where_and_why() -> None:
    """The others keep the version before; a person is told what to do."""
    found = wave(a=Member(NEW, "Failed", "PullFailed", "no such image."), b=WELL, c=WELL)
    assert (found.state, found.give, found.failed) == ("Failed", (), ("a",))
    assert found.message == (
        "a could not apply it: PullFailed: no such image; b, c keep the version before. "
        "Push a version that works, or revert"
    )


def test_the_newest_version_goes_first_to_whom_the_one_before_failed() -> None:
    """It is there that a mended version can mend something, and the one that serves goes on."""
    members = {"a": Member(OLD, "Applied", "Running"), "b": Member(NEW, "Failed", "Exited"), "c": WELL}
    assert next_wave(NEWER, members, RULE).give == ("b",)
    members["b"] = Member(NEW, "Progressing", "Starting")
    assert next_wave(NEWER, members, RULE).give == ("b",)


def test_no_agent_that_serves_is_touched_while_enough_are_without() -> None:
    """Those that are not well count, whatever they hold, and still take their turns one by one."""
    broken = Member(OLD, "Failed", "Exited")
    assert wave(a=WELL, b=broken, c=broken).give == ("b",)
    assert wave(a=WELL, b=DONE, c=broken).give == ("c",)
    assert wave(Rule(3, 300), a=WELL, b=broken, c=WELL, d=WELL).give == ("a", "b", "c")


def test_an_agent_that_is_away_counts_until_it_is_passed_over() -> None:
    """After the deadline the others go on; it has its turn when it is back."""
    assert wave(a=replace(WELL, away=10.0), b=WELL).give == ()
    assert wave(a=replace(WELL, away=300.0), b=WELL).give == ("b",)
    found = wave(a=replace(WELL, away=300.0), b=DONE)
    assert (found.give, found.state, found.message) == ((), "Done", "a will get it when back")
    assert wave(a=WELL, b=DONE).give == ("a",)
    assert wave(a=replace(DONE, away=1.0), b=DONE).state == "Done"
    assert wave(a=Member(NEW, away=1.0), b=DONE).state == "Done"
    in_waves = RULE._replace(in_waves=True)
    assert wave(in_waves, a=Member(NEW, away=1.0), b=DONE).state == "Progressing", "others waited for it"
    assert wave(in_waves, a=Member(NEW, away=301.0), b=DONE).state == "Done"
    assert wave(a=replace(WELL, away=1.0), b=DONE).state == "Progressing"


def test_one_agent_may_be_lost_while_it_changes_and_a_second_stops_it() -> None:
    """One may be chance; that the version kills machines one by one must not go on."""
    gone = Member(NEW, None, away=400.0)
    assert wave(a=gone, b=WELL, c=WELL).give == ("b",)
    found = wave(a=gone, b=gone, c=WELL)
    assert (found.state, found.give, found.lost) == ("Failed", (), ("a", "b"))
    assert wave(a=replace(DONE, away=400.0), b=replace(DONE, away=400.0), c=WELL).give == ("c",)


def test_who_has_no_older_version_gets_it_at_once() -> None:
    """There is nothing that could be interrupted; a failure elsewhere does not leave it with nothing."""
    none = Member("")
    assert wave(a=none, b=none, c=none).give == ("a", "b", "c")
    assert wave(a=Member(NEW, "Failed"), b=none, c=WELL).give == ("b",)


def test_a_pause_keeps_every_further_agent_from_it() -> None:
    """Also those that have nothing yet. Who is changing goes on."""
    found = wave(RULE._replace(paused="jane"), a=Member(NEW, "Progressing"), b=WELL, c=Member(""))
    assert (found.state, found.give, found.changing) == ("Paused", (), ("a",))
    assert found.message == "paused by jane; b, c keep the version before"
    assert wave(RULE._replace(paused="jane"), a=DONE).state == "Done"


def test_what_interrupts_nothing_is_no_other_version() -> None:
    """Where it runs, how it is rolled out and what happens to its data reach every agent at once."""
    spec: dict[str, Any] = {"type": "container", "image": "web:1", "agents": ["a"], "deletionPolicy": "delete"}
    moved = {**spec, "agents": ["a", "b"], "rollout": {"maxUnavailable": 2}, "deletionPolicy": "retain"}
    assert version_of(spec) == version_of(moved)
    assert version_of(spec) != version_of({**spec, "image": "web:2"})
    assert version_of(spec) != version_of({**spec, "secretsVersion": "sha256:1"})
    assert older_spec(spec, {**moved, "image": "web:2"}) == moved


# --- properties --------------------------------------------------------------------------------------------------

members_of = st.builds(
    Member,
    holds=st.sampled_from(["", OLD, NEW, NEWER]),
    state=st.sampled_from([None, "Applied", "Progressing", "Failed"]),
    reason=st.sampled_from(["", "Running", "Unhealthy"]),
    away=st.sampled_from([None, None, None, 1.0, 1000.0]),
)
fleets = st.dictionaries(st.sampled_from("abcdefghij"), members_of, max_size=10)
rules = st.builds(Rule, st.integers(1, 4), st.just(300.0), st.sampled_from(["", "", "jane"]))


def serves(one: Member) -> bool:
    return one.is_well


@given(fleets, rules)
def test_never_more_than_allowed_are_changed_or_without_it(members: dict[str, Member], rule: Rule) -> None:
    """From any situation at all, a look makes neither number exceed the limit, beyond those it found so."""
    found = next_wave(NEW, members, rule)
    replacing = [name for name in found.give if members[name].holds]
    changing = {name for name, one in members.items() if one.holds == NEW and not one.is_well and one.away is None}
    if replacing:
        assert len(changing) + len(replacing) <= rule.max_unavailable
    if any(serves(members[name]) for name in replacing):
        older = [one for one in members.values() if one.holds and not serves(one) and (one.away or 0) < rule.deadline]
        assert len(older) + sum(serves(members[name]) for name in replacing) <= rule.max_unavailable
    assert all(members[name].away is None for name in replacing)
    assert set(found.give).isdisjoint(found.waiting)
    assert {*found.give, *found.waiting} == {name for name, one in members.items() if one.holds != NEW}


@given(fleets, rules)
def test_looking_twice_gives_nothing_more(members: dict[str, Member], rule: Rule) -> None:
    """As long as no agent has said anything, the same look again changes nothing."""
    found = next_wave(NEW, members, rule)
    later = members | {name: replace(members[name], holds=NEW, state=None, reason="") for name in found.give}
    again = next_wave(NEW, later, rule)
    assert [name for name in again.give if later[name].holds] == []


@given(fleets, rules, st.data())
@settings(deadline=None)
def test_a_roll_out_ends_when_every_agent_comes_and_says_applied(
    members: dict[str, Member], rule: Rule, data: st.DataObject
) -> None:
    """Whatever was there before, in whatever order they answer, and although newer commits come in between."""
    versions = data.draw(st.lists(st.sampled_from([OLD, NEW, NEWER]), min_size=1, max_size=3))
    rule = rule._replace(paused="")
    for number, version in enumerate(versions):
        last = number == len(versions) - 1
        for _ in range(4 * len(members) + 4 if last else data.draw(st.integers(0, 5))):
            found = next_wave(version, members, rule)
            members |= {name: Member(version, away=members[name].away) for name in found.give}
            if last and found.state == "Done" and not found.waiting:
                break
            open_ones = sorted(name for name, one in members.items() if one.holds and not one.is_well)
            if open_ones:
                name = data.draw(st.sampled_from(open_ones))
                members[name] = Member(members[name].holds, "Applied", "Running")
    assert {one.holds for one in members.values()} <= {versions[-1]}
    assert next_wave(versions[-1], members, rule).state == "Done"
