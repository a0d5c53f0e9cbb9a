"""What is told of what is wrong: once each, with reminders, and when it is over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reconciler.notifications.conditions import (
    CLEAR_SECONDS,
    Condition,
    Kept,
    Key,
    Notice,
    collapse,
    of_event,
    step,
)
from schemas.notifications import NotificationRule

AWAY = Condition("AgentAway", "agent/vps-1", "warning", "vps-1 is away")
REFUSED = Condition("ObjectRefused", "routes/shop/web.yaml", "error", "routes/shop/web.yaml:3 is kept out", team="shop")


def rule(**said: object) -> NotificationRule:
    return NotificationRule.model_validate({"channels": ["ops"], "after": "1s", **said})


def run(
    rules: list[NotificationRule], looks: Iterable[tuple[float, tuple[Condition, ...]]]
) -> list[tuple[float, str, str, str]]:
    kept: Mapping[Key, Kept] = {}
    told: list[tuple[float, str, str, str]] = []
    for now, seen in looks:
        kept, notices = step(kept, seen, rules, now)
        told += [(now, one.channel, one.kind, one.condition.subject) for one in notices]
    return told


def test_what_is_wrong_is_told_once_it_has_lasted_and_once_when_it_is_over() -> None:
    """One message when it has lasted, none while it stays, one when it is gone for good."""
    looks = [
        (0.0, (AWAY,)),
        (2.0, (AWAY,)),
        (4.0, (AWAY,)),
        (5.0, ()),
        (6.0, ()),
        (5.0 + CLEAR_SECONDS, ()),
        (99.0, ()),
    ]
    assert run([rule()], looks) == [
        (2.0, "ops", "raised", "agent/vps-1"),
        (5.0 + CLEAR_SECONDS, "ops", "recovered", "agent/vps-1"),
    ]


def test_what_passes_quickly_is_told_nobody() -> None:
    """Something that is gone before it has lasted is no news, and neither is its end."""
    assert run([rule(after="30s")], [(0.0, (AWAY,)), (10.0, ()), (100.0, ())]) == []


def test_what_comes_back_soon_never_went() -> None:
    """A gap that is shorter than the time that an end takes is told nobody."""
    looks = [(0.0, (AWAY,)), (2.0, (AWAY,)), (3.0, ()), (4.0, (AWAY,)), (60.0, (AWAY,))]
    assert run([rule()], looks) == [(2.0, "ops", "raised", "agent/vps-1")]


def test_another_severity_is_told_and_other_words_are_not() -> None:
    """A condition that gets worse is told again; one that is worded otherwise is not."""
    worse, reworded = replace(AWAY, severity="error"), replace(AWAY, message="for 3 minutes")
    looks = [(0.0, (AWAY,)), (2.0, (AWAY,)), (3.0, (reworded,)), (4.0, (worse,)), (5.0, (worse,))]
    assert run([rule()], looks) == [
        (2.0, "ops", "raised", "agent/vps-1"),
        (4.0, "ops", "changed", "agent/vps-1"),
    ]


def test_what_stays_wrong_is_told_again_as_often_as_the_rule_says() -> None:
    """Reminders come at their interval, counted from what was told last."""
    looks = [(float(second), (AWAY,)) for second in range(0, 200, 10)]
    assert run([rule(remind="1m")], looks) == [
        (10.0, "ops", "raised", "agent/vps-1"),
        (70.0, "ops", "reminded", "agent/vps-1"),
        (130.0, "ops", "reminded", "agent/vps-1"),
        (190.0, "ops", "reminded", "agent/vps-1"),
    ]


def test_each_channel_hears_what_its_rule_is_about() -> None:
    """Rules choose by severity, team and type; who was not told of it is not told of its end."""
    rules = [
        rule(channels=["shop"], teams=["shop"]),
        rule(channels=["pager"], severities=["error"]),
        rule(channels=["agents"], conditions=["AgentAway"]),
    ]
    looks = [(0.0, (AWAY, REFUSED)), (2.0, (AWAY, REFUSED)), (3.0, ()), (3.0 + CLEAR_SECONDS, ())]
    assert {(channel, kind, subject) for _, channel, kind, subject in run(rules, looks)} == {
        ("shop", "raised", "routes/shop/web.yaml"),
        ("pager", "raised", "routes/shop/web.yaml"),
        ("agents", "raised", "agent/vps-1"),
        ("shop", "recovered", "routes/shop/web.yaml"),
        ("pager", "recovered", "routes/shop/web.yaml"),
        ("agents", "recovered", "agent/vps-1"),
    }


def test_what_cannot_be_judged_now_neither_begins_nor_ends() -> None:
    """After a restart agents are not taken for away, and those that were are not taken for back."""
    kept, _ = step({}, [AWAY], [rule()], 0.0)
    kept, notices = step(kept, [AWAY], [rule()], 5.0)
    assert [one.kind for one in notices] == ["raised"]
    for now in (6.0, 600.0):
        kept, notices = step(kept, [replace(AWAY, subject="agent/vps-2")], [rule()], now, unjudged={"AgentAway"})
        assert notices == []
        assert list(kept) == [("agent/vps-1", "AgentAway")]


def test_events_are_told_where_a_rule_names_their_type() -> None:
    """An event goes once to each channel whose rule names it, and such a rule is about no conditions."""
    rules = [rule(events=["PlanApproved"]), rule(channels=["ops", "audit"], events=["PlanApproved"])]
    approved = Condition("PlanApproved", "plan/1", "info", "ada approved it")
    assert [(one.channel, one.kind) for one in of_event(rules, approved, 1.0)] == [("ops", "event"), ("audit", "event")]
    assert of_event(rules, replace(approved, type="TokenUsed"), 1.0) == []
    assert run(rules, [(0.0, (REFUSED,)), (5.0, (REFUSED,))]) == []


def test_one_message_says_the_last_of_each_condition() -> None:
    """Raised and over within one message has passed; raised and reminded is raised; events all stay."""

    def of(kind: str, condition: Condition, at: float) -> Notice:
        return Notice("ops", kind, condition, 0.0, at)  # type: ignore[arg-type]

    told = [of("raised", AWAY, 1), of("raised", REFUSED, 2), of("recovered", AWAY, 3), of("reminded", REFUSED, 4)]
    told += [of("event", AWAY, 5), of("event", AWAY, 6)]
    assert [(one.kind, one.at) for one in collapse(told)] == [("passed", 3), ("raised", 4), ("event", 5), ("event", 6)]
    assert [one.kind for one in collapse([of("recovered", AWAY, 1)])] == ["recovered"]


@given(st.lists(st.sets(st.sampled_from(["a", "b", "c"])), max_size=40), st.integers(1, 40))
def test_a_channel_hears_begin_and_end_in_turn(looks: list[set[str]], interval: int) -> None:
    """Whatever comes and goes, of each subject the channel hears a beginning, then its end, then a beginning again."""
    told: dict[str, list[str]] = {}
    timed = [(float(number * interval), tuple(replace(AWAY, subject=name) for name in sorted(look)))
             for number, look in enumerate(looks)]  # fmt: skip
    for _, _, kind, subject in run([rule()], timed):
        told.setdefault(subject, []).append(kind)
    for kinds in told.values():
        assert kinds == [("raised", "recovered")[number % 2] for number in range(len(kinds))]
