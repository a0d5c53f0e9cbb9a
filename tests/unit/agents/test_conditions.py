"""Socket, workloads and data plane are judged apart, what is stale is unknown, and nothing flickers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.agents.conditions import HOLD, TYPES, Facts, Probed, Shown, Status, Told, Verdict, judge, shown

NOW = 10_000.0
GOOD = Facts(
    connected=True, last_seen=NOW - 1, silence=50.0, began=0.0, outcome="applied",
    told=(Told("shop/web", False, "Running", "healthy"),), probed=Probed(NOW - 1, 2, ()),
)  # fmt: skip


def standing(facts: Facts) -> list[tuple[Status, str]]:
    return [judge(kind, facts, NOW)[:2] for kind in TYPES]


def test_an_agent_that_is_well_is_well_in_all_three() -> None:
    """Connected, as wanted, answering."""
    assert standing(GOOD) == [("True", "Connected"), ("True", "AsWanted"), ("True", "Answering")]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"connected": False}, ["Disconnected", "AsWanted", "Answering"]),
        ({"told": (Told("shop/web", True, "Exited"),)}, ["Connected", "Failing", "Answering"]),
        ({"told": (Told("shop/web", False, "Running", "unhealthy"),)}, ["Connected", "Failing", "Answering"]),
        ({"told": (Told("shop/web", True, "EngineUnavailable"),)}, ["Connected", "EngineUnavailable", "Answering"]),
        ({"told": (Told("shop/web", False, "", "unknown"),)}, ["Connected", "NotKnown", "Answering"]),
        ({"told": ()}, ["Connected", "NothingWanted", "Answering"]),
        ({"outcome": "refused"}, ["Connected", "NotApplied", "Answering"]),
        ({"probed": Probed(NOW, 1, ("vps-1:8081",))}, ["Connected", "AsWanted", "NoAnswer"]),
        ({"probed": Probed(NOW - 51, 2, ())}, ["Connected", "AsWanted", "Stale"]),
        ({"probed": None}, ["Connected", "AsWanted", "NotProbed"]),
        ({"last_seen": NOW - 51}, ["Silent", "Stale", "Answering"]),
        ({"last_seen": NOW - 51, "connected": False}, ["Disconnected", "Stale", "Answering"]),
        ({"last_seen": None, "connected": False}, ["NeverSeen", "NeverSeen", "Answering"]),
        ({"connected": False, "began": NOW - 5}, ["Starting", "AsWanted", "Answering"]),
    ],
)  # fmt: skip
def test_each_fact_moves_its_own_condition(changed: dict[str, object], expected: list[str]) -> None:
    """A closed socket says nothing of the data plane, a dead engine nothing of the socket, silence makes unknown."""
    assert [reason for _, reason in standing(GOOD._replace(**changed))] == expected  # type: ignore[arg-type]


def test_a_message_names_a_few_and_counts_the_rest() -> None:
    """Forty deployments that fail are no page of names."""
    told = tuple(Told(f"shop/app-{number:02}", True, "Exited") for number in range(40))
    assert judge("Workloads", GOOD._replace(told=told), NOW).message == (
        "Not as wanted: shop/app-00, shop/app-01, shop/app-02 and 37 more."
    )


def walk(steps: list[tuple[float, Status]]) -> list[tuple[Status, float]]:
    """Return status and since after each (pause, status)."""
    now, state, found = 0.0, None, []
    for pause, status in steps:
        now += pause
        state = shown("Connected", state, Verdict(status, "Any", "", now), now)
        found.append((state.condition.status, state.condition.since))
    return found


def test_what_lasts_is_shown_since_it_began() -> None:
    """A loss counts after ten seconds, and then from its beginning."""
    assert walk([(0, "True"), (5, "False"), (5, "False"), (5, "False")]) == [
        ("True", 0.0), ("True", 0.0), ("True", 0.0), ("False", 5.0),
    ]  # fmt: skip


def test_what_flaps_is_not_shown() -> None:
    """A status that never lasts never takes the place of another one."""
    flapping: list[tuple[float, Status]] = [(4.0, "True"), (4.0, "False")]
    flapping *= 20
    assert {status for status, _ in walk(flapping)} == {"True"}


def test_unknown_needs_no_time_and_gives_none() -> None:
    """What is too old is unknown at once, and the first good word after it counts at once."""
    assert [one for one, _ in walk([(0, "True"), (1, "Unknown"), (1, "True"), (1, "Unknown"), (1, "False")])] == [
        "True", "Unknown", "True", "Unknown", "False",
    ]  # fmt: skip


@given(st.lists(st.tuples(st.floats(min_value=0, max_value=30), st.sampled_from(["True", "False", "Unknown"]))))
def test_a_good_and_a_bad_status_never_follow_each_other_early(steps: list[tuple[float, Status]]) -> None:
    """Between True and False lie the seconds of the hold, and ``since`` never goes back or into the future."""
    now, state, before = 0.0, None, None
    for pause, status in steps:
        now += pause
        state = shown("Connected", state, Verdict(status, "Any", "", now), now)
        one = state.condition
        assert one.since <= now
        if before is not None:
            assert one.since >= before.since
            if {one.status, before.status} == {"True", "False"}:
                assert now - one.since >= HOLD[one.status]
        before = one


def test_what_is_shown_is_a_value() -> None:
    """The state between two looks is the condition and who waits to take its place."""
    first = shown("Connected", None, Verdict("True", "Connected", "", 0.0), 0.0)
    second = shown("Connected", first, Verdict("False", "Disconnected", "", 1.0), 1.0)
    assert second == Shown(first.condition, ("False", 1.0))
