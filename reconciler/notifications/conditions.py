"""What is wrong, and what has changed since somebody was told. PURE.

A condition is something that is not as it should be, such as an agent that is away. It is raised once it has lasted for
a while, told again when it becomes more or less severe or by a reminder, and recovered once it has been gone for a
while. A channel hears of the end of what it heard of, and of nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from schemas.names import seconds
from schemas.notifications import NotificationRule, Severity

Kind = Literal["raised", "changed", "reminded", "recovered", "passed", "event", "test"]
"""``passed``: it came and went before anybody was told."""
CLEAR_SECONDS: Final = 20.0
"""What is gone for so long is over; what comes back before never went."""
NOTHING: Final = frozenset[str]()

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Condition:
    """``type`` such as AgentAway, ``subject`` such as agent/vps-1; a subject has one condition of a type at a time."""

    type: str
    subject: str
    severity: Severity
    title: str
    """One sentence without its full stop."""
    message: str = ""
    """Why, and what to do."""
    team: str = ""
    link: str = ""
    """Path in the dashboard."""

    @property
    def key(self) -> Key:
        """What it is known by."""
        return self.subject, self.type


@dataclass(frozen=True, slots=True)
class Told:
    """What a channel heard last. ``at``: POSIX seconds."""

    at: float
    severity: Severity


@dataclass(frozen=True, slots=True)
class Kept:
    """A condition through its life. Times in POSIX seconds."""

    condition: Condition
    since: float
    gone: float | None = None
    """Since when it is not there any more."""
    told: Mapping[str, Told] = field(default_factory=dict)
    """By channel."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell one channel."""

    channel: str
    kind: Kind
    condition: Condition
    since: float
    at: float


def concerns(rule: NotificationRule, condition: Condition) -> bool:
    """Say whether a rule is about a condition."""
    if rule.events and not rule.conditions:
        return False
    return (
        condition.severity in rule.severities
        and (not rule.teams or condition.team in rule.teams)
        and (not rule.conditions or condition.type in rule.conditions)
    )


def step(
    kept: Mapping[Key, Kept],
    seen: Iterable[Condition],
    rules: Sequence[NotificationRule],
    now: float,
    *,
    unjudged: Collection[str] = NOTHING,
) -> tuple[dict[Key, Kept], list[Notice]]:
    """Return what is to be kept, and what is to be told.

    Args:
        kept: what the step before returned.
        seen: all that is wrong now.
        rules: of the fleet; the first that concerns a condition and names a channel counts for that channel.
        now: POSIX seconds.
        unjudged: types of which nothing can be said now; what is kept of them stays as it is.
    """
    present = {one.key: one for one in seen if one.type not in unjudged}
    after: dict[Key, Kept] = {}
    notices: list[Notice] = []
    for key in dict.fromkeys((*kept, *present)):
        before, condition = kept.get(key), present.get(key)
        if condition is not None:
            one = _seen(before, condition, now)
            one = _tell(one, rules, now, notices)
        elif before is not None and before.condition.type in unjudged:
            one = before
        elif before is not None and (ended := _end(before, now, notices)) is not None:
            one = ended
        else:
            continue
        after[key] = one
    return after, notices


def of_event(rules: Sequence[NotificationRule], event: Condition, now: float) -> list[Notice]:
    """Return what is to be told of an event of the timeline, once for each channel."""
    wanted = (rule for rule in rules if event.type in rule.events and (not rule.teams or event.team in rule.teams))
    channels = dict.fromkeys(name for rule in wanted for name in rule.channels)
    return [Notice(channel, "event", event, now, now) for channel in channels]


def collapse(notices: Sequence[Notice]) -> list[Notice]:
    """Leave the last of what is said about each condition; what was raised and is over has passed."""
    first: dict[object, Notice] = {}
    last: dict[object, Notice] = {}
    for number, one in enumerate(notices):
        key: object = number if one.kind in ("event", "test") else one.condition.key
        first.setdefault(key, one)
        last.pop(key, None)
        last[key] = one
    return [_collapsed(first[key], one) for key, one in last.items()]


def _collapsed(first: Notice, last: Notice) -> Notice:
    if first is last or first.kind != "raised":
        return last
    return replace(last, kind="passed" if last.kind == "recovered" else "raised")


def _seen(before: Kept | None, condition: Condition, now: float) -> Kept:
    if before is None:
        return Kept(condition, now)
    is_same = before.gone is None and before.condition == condition
    return before if is_same else replace(before, condition=condition, gone=None)


def _tell(one: Kept, rules: Sequence[NotificationRule], now: float, notices: list[Notice]) -> Kept:
    condition, told = one.condition, dict[str, Told]()
    for channel, rule in _channels(rules, condition).items():
        kind = _due(one.told.get(channel), rule, condition, one.since, now)
        if kind is not None:
            notices.append(Notice(channel, kind, condition, one.since, now))
            told[channel] = Told(now, condition.severity)
    return replace(one, told={**one.told, **told}) if told else one


def _channels(rules: Sequence[NotificationRule], condition: Condition) -> dict[str, NotificationRule]:
    found: dict[str, NotificationRule] = {}
    for rule in rules:
        if concerns(rule, condition):
            for name in rule.channels:
                found.setdefault(name, rule)
    return found


def _due(told: Told | None, rule: NotificationRule, condition: Condition, since: float, now: float) -> Kind | None:
    if told is None:
        return "raised" if now - since >= seconds(rule.after) else None
    if told.severity != condition.severity:
        return "changed"
    if rule.remind is not None and now - told.at >= seconds(rule.remind):
        return "reminded"
    return None


def _end(one: Kept, now: float, notices: list[Notice]) -> Kept | None:
    """Return what is kept of a condition that is not there; None once it is over."""
    gone = now if one.gone is None else one.gone
    if one.told and now - gone < CLEAR_SECONDS:
        return replace(one, gone=gone)
    notices.extend(Notice(channel, "recovered", one.condition, one.since, now) for channel in one.told)
    return None
