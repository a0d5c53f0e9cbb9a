"""Which agents of a deployment get its newest version now, and which keep the one before. PURE.

A deployment on several agents is changed on at most ``rollout.maxUnavailable`` of them at once. Each look decides anew
from what each agent's document holds and what the agent said about it; nothing is remembered between looks.

- *Changing* is an agent whose document has the newest version and that has not said that it runs well. They are never
  more than ``maxUnavailable``, and no agent that serves is touched while that many are without the deployment anyway.
- Agents that are not well with their older version go first: they have the least to lose, and the newest version may be
  what mends them. So a newer commit goes on where a failed one stopped.
- An agent that fails stops the roll-out: the others keep what they have, until it says otherwise or a newer version
  comes.
- An agent that is away counts as unavailable until it has been away for ``rollout.deadline``; then it is passed over,
  and has its turn when it is back. One that went away while it was changing is passed over likewise, once: machines
  fail by chance, but a second one of the same roll-out stops it.
- An agent that has no older version gets the newest at once, for it has nothing to lose; while the roll-out is paused
  it gets nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from schemas.session import digest_of

ItemState = Literal["Applied", "Progressing", "Failed"]
RolloutState = Literal["Progressing", "Paused", "Failed", "Done"]
FREE: Final = ("agents", "agentSelector", "deletionPolicy", "rollout")
"""Members of a deployment's spec that interrupt nothing: they reach every agent at once."""
NOT_WELL: Final = frozenset({"Restarting", "Unhealthy"})
"""Reasons of an item that is as wanted, and still of no use."""
MAX_LOST: Final = 1
"""Agents that may go away while they are changing, before a roll-out stops."""
_NAMED: Final = 5


def version_of(spec: Mapping[str, Any]) -> str:
    """Return the digest of what is to run, for the spec of a deployment's item; empty members count as absent."""
    return digest_of({name: value for name, value in spec.items() if name not in FREE})


def older_spec(older: Mapping[str, Any], newest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an agent that keeps an older version is told: that version, on the newest terms.

    Whether data may be deleted must never be what an older file said of it.
    """
    kept = {name: value for name, value in older.items() if name not in FREE}
    return kept | {name: newest[name] for name in FREE if name in newest}


@dataclass(frozen=True, slots=True)
class Member:
    """An agent that a deployment runs on. ``holds``: version in its document, empty where there is none."""

    holds: str
    state: ItemState | None = None
    """What it said last of what it holds; None: nothing yet."""
    reason: str = ""
    message: str = ""
    away: float | None = None
    """For how many seconds it has not been there; None: it is connected."""

    @property
    def is_well(self) -> bool:
        """Whether it serves, as far as is known."""
        return self.away is None and self.state == "Applied" and self.reason not in NOT_WELL


class Rule(NamedTuple):
    """What a deployment says of its roll-out. ``deadline``: seconds. ``paused``: by whom, empty where it is not."""

    max_unavailable: int
    deadline: float
    paused: str = ""
    in_waves: bool = False
    """Some agents had to wait for others, so those that are away are waited for until they are passed over."""


@dataclass(frozen=True, slots=True)
class Wave:
    """What to do now, and where the roll-out stands then. Names are in order."""

    state: RolloutState
    message: str = ""
    give: tuple[str, ...] = ()
    """Agents that get the newest version now."""
    waiting: tuple[str, ...] = ()
    """Those that keep what they have for now."""
    changing: tuple[str, ...] = ()
    """Those that have it and have not said that it is applied."""
    failed: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    """Those that went away while they were changing, and are passed over."""


def next_wave(version: str, members: Mapping[str, Member], rule: Rule) -> Wave:
    """Decide who gets ``version`` now."""
    has = {name: one for name, one in members.items() if one.holds == version}
    rest = {name: one for name, one in members.items() if one.holds != version}
    failed = sorted(name for name, one in has.items() if one.state == "Failed")
    changing = sorted(name for name, one in has.items() if one.state != "Applied" and not _passed_over(one, rule))
    busy = sum(not one.is_well and not _passed_over(one, rule) for one in has.values())
    lost = sorted(name for name, one in has.items() if one.state != "Applied" and _passed_over(one, rule))
    stops = bool(failed) or len(lost) > MAX_LOST
    first = () if rule.paused else sorted(name for name, one in rest.items() if not one.holds)
    give = {*first, *(() if stops or rule.paused else _turn(rest, busy, rule))}
    waiting = tuple(sorted(rest.keys() - give))
    wave = Wave("Progressing", "", tuple(sorted(give)), waiting, tuple(changing), tuple(failed), tuple(lost))
    return _judged(wave, members, rule)


def _turn(rest: Mapping[str, Member], busy: int, rule: Rule) -> list[str]:
    """Name those whose turn it is: who is not well first, and of the others only as many as may be without it.

    ``busy``: agents that have the newest version and are not well.
    """
    older = {name: one for name, one in rest.items() if one.holds}
    there = sorted(name for name, one in older.items() if one.away is None)
    slots = max(0, rule.max_unavailable - busy)
    not_well = [name for name in there if not older[name].is_well]
    away = sum(one.away is not None and not _passed_over(one, rule) for one in older.values())
    spare = max(0, rule.max_unavailable - busy - len(not_well) - away)
    chosen = not_well[:slots]
    well = [name for name in there if older[name].is_well]
    return chosen + well[: min(spare, slots - len(chosen))]


def _passed_over(one: Member, rule: Rule) -> bool:
    return one.away is not None and one.away >= rule.deadline


def _judged(wave: Wave, members: Mapping[str, Member], rule: Rule) -> Wave:
    state, message = _state(wave, members, rule)
    return Wave(state, message, wave.give, wave.waiting, wave.changing, wave.failed, wave.lost)


def _state(wave: Wave, members: Mapping[str, Member], rule: Rule) -> tuple[RolloutState, str]:
    kept = f"{_some(wave.waiting)} {'keeps' if len(wave.waiting) == 1 else 'keep'} the version before"
    rest = f"; {kept}" if wave.waiting else ""
    if wave.failed:
        first = members[wave.failed[0]]
        why = ": ".join(filter(None, (first.reason, first.message)))
        text = f"{_some(wave.failed)} could not apply it{f': {why}' if why else ''}"
        return "Failed", f"{text.rstrip('.')}{rest}. Push a version that works, or revert"
    if len(wave.lost) > MAX_LOST:
        text = f"{_some(wave.lost)} went away while they changed to it{rest}"
        return "Failed", f"{text}. It goes on when they are back; or push another version"
    waiting = [name for name in wave.waiting if not _passed_over(members[name], rule)]
    if rule.paused and wave.waiting:
        return "Paused", f"paused by {rule.paused}{rest}"
    changing = [name for name in wave.changing if rule.in_waves or members[name].away is None]
    if wave.give or changing:
        on = f"changing on {_some(sorted((*wave.give, *changing)))}"
        return "Progressing", f"{on}{f'; {len(wave.waiting)} to come' if wave.waiting else ''}"
    if waiting:
        return "Progressing", f"waiting until fewer agents are without it; {len(wave.waiting)} to come"
    return "Done", f"{_some(wave.waiting)} will get it when back" if wave.waiting else ""


def _some(names: Iterable[str]) -> str:
    every = tuple(names)
    return ", ".join(every[:_NAMED]) + (f" and {len(every) - _NAMED} more" if len(every) > _NAMED else "")
