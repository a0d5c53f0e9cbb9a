"""How an agent stands: three conditions, judged apart, because each can be bad while the others are good. PURE.

  Connected   the socket: a conversation is under way
  Workloads   engine and deployments, as the agent told last
  DataPlane   what routes lead to there, as it was probed from beside the fronts

What is told too long ago is ``Unknown``, never what it was. A change of status is shown once it has lasted for its time
in :data:`HOLD`, so that what flaps does not flicker; until then the former one stays, with the time since when.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

Status = Literal["True", "False", "Unknown"]
Type = Literal["Connected", "Workloads", "DataPlane"]
TYPES: Final[tuple[Type, ...]] = ("Connected", "Workloads", "DataPlane")
HOLD: Final[dict[Status, float]] = {"True": 10.0, "False": 10.0, "Unknown": 0.0}
"""Seconds that a status must last before it takes the place of another one."""
NAMED: Final = 3
"""Deployments that a message names; the others are counted."""
ENGINE_AWAY: Final = frozenset({"EngineUnavailable", "DriverFailed"})
"""Reasons of items that say nothing about what runs."""
_ILL: Final = frozenset({"unhealthy", "stopped"})


class Verdict(NamedTuple):
    status: Status
    reason: str
    message: str
    heard: float | None = None
    """When that was last heard of which it is judged; POSIX seconds, as are all times here."""


class Condition(NamedTuple):
    type: Type
    status: Status
    reason: str
    message: str
    since: float
    """When the status became what it is."""
    heard: float | None


class Told(NamedTuple):
    """A deployment, as the agent told it."""

    name: str
    """``<team>/<name>``."""
    failed: bool
    reason: str
    health: str = ""


class Probed(NamedTuple):
    """What probes of an agent's endpoints found."""

    at: float
    answering: int
    silent: tuple[str, ...]
    """Endpoints that do not answer, for people."""


class Facts(NamedTuple):
    """What is known of an agent."""

    connected: bool
    last_seen: float | None
    """None: never."""
    silence: float
    """Seconds after which what was told is stale."""
    began: float
    """When this control plane started; before, nobody can have been connected to it."""
    outcome: str = ""
    told: Sequence[Told] = ()
    probed: Probed | None = None


class Shown(NamedTuple):
    """A condition, and the status that may take the place of its own, with since when."""

    condition: Condition
    next: tuple[Status, float] | None = None


def judge(kind: Type, facts: Facts, now: float) -> Verdict:
    """Say how it stands at this moment."""
    match kind:
        case "Connected":
            return _connected(facts, now)
        case "Workloads":
            return _workloads(facts, now)
        case "DataPlane":
            return _data_plane(facts, now)


def shown(kind: Type, before: Shown | None, verdict: Verdict, now: float) -> Shown:
    """Return what is shown from now on."""
    status, reason, message, heard = verdict
    fresh = Condition(kind, status, reason, message, now, heard)
    if before is None:
        return Shown(fresh)
    old = before.condition
    if old.status == status:
        return Shown(fresh._replace(since=old.since))
    since = before.next[1] if before.next is not None and before.next[0] == status else now
    # from Unknown anything is news at once: there is nothing that could flicker
    if old.status == "Unknown" or now - since >= HOLD[status]:
        return Shown(fresh._replace(since=since))
    return Shown(old, (status, since))


def _connected(facts: Facts, now: float) -> Verdict:
    seen = facts.last_seen
    if facts.connected and seen is not None:
        if now - seen > facts.silence:
            return Verdict("Unknown", "Silent", f"Connected, and nothing came for {now - seen:.0f} seconds.", seen)
        return Verdict("True", "Connected", "", seen)
    if seen is None:
        return Verdict("Unknown", "NeverSeen", "It has never connected.")
    if now - facts.began <= facts.silence:
        return Verdict("Unknown", "Starting", "The control plane has just started, and waits for agents.", seen)
    return Verdict("False", "Disconnected", "No connection.", seen)


def _workloads(facts: Facts, now: float) -> Verdict:
    seen = facts.last_seen
    if seen is None:
        return Verdict("Unknown", "NeverSeen", "It has never told anything.")
    if now - seen > facts.silence:
        return Verdict("Unknown", "Stale", "What it told last is too old to be believed.", seen)
    away = [one.name for one in facts.told if one.failed and one.reason in ENGINE_AWAY]
    if away:
        return Verdict("Unknown", "EngineUnavailable", f"The engine does not say how they are: {_some(away)}.", seen)
    bad = [one.name for one in facts.told if one.failed or one.health in _ILL]
    if bad:
        return Verdict("False", "Failing", f"Not as wanted: {_some(bad)}.", seen)
    if facts.outcome in ("failed", "refused"):
        return Verdict("False", "NotApplied", "It could not apply its document.", seen)
    unknown = [one.name for one in facts.told if one.health == "unknown"]
    if unknown:
        return Verdict("Unknown", "NotKnown", f"Nobody can tell how they are: {_some(unknown)}.", seen)
    return Verdict("True", "AsWanted" if facts.told else "NothingWanted", "", seen)


def _data_plane(facts: Facts, now: float) -> Verdict:
    probed = facts.probed
    if probed is None:
        return Verdict("Unknown", "NotProbed", "Nothing there was probed: no route leads there, or nobody had to ask.")
    if now - probed.at > facts.silence:
        return Verdict("Unknown", "Stale", "It was probed too long ago.", probed.at)
    if probed.silent:
        return Verdict("False", "NoAnswer", f"No answer from {_some(probed.silent)}.", probed.at)
    return Verdict("True", "Answering", "", probed.at)


def _some(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
