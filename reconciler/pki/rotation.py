"""How a key gives way to another without anybody being turned away. PURE: clock and facts are arguments.

The way of a rotation, of a root, an intermediate, the keys of tokens and documents, or the age identity:

1. ``prepare``     the next key is made, beside the current one; where a root's key is elsewhere, a person helps
2. ``distribute``  everybody who verifies gets to know it; agents acknowledge it by what they have applied
3. ``activate``    it signs from now on, the former does no more
4. ``wait``        until everything that the former signed has ended or was replaced
5. ``remove``      the former is forgotten

Whoever drives it (:mod:`reconciler.app.rotation`) writes a phase down before doing what belongs to it, and asks
:func:`decide` afterwards; what belongs to a phase may be done twice. So a rotation goes on after a crash at any point.

A *tainted* key is one that others may know: nobody who is away is waited for, what it signed is replaced at once, and
tokens that it signed are refused at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, get_args

from reconciler.errors import Refused

Subject = Literal["root", "intermediate", "access", "desired", "operator", "age"]
Phase = Literal["prepare", "distribute", "activate", "wait", "remove"]
SUBJECTS: Final[tuple[Subject, ...]] = get_args(Subject)
PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
TOLD_TO_AGENTS: Final[frozenset[Subject]] = frozenset({"root", "desired"})
"""What agents verify with, so that they have to know the next one before it is used."""
OF_THE_AUTHORITY: Final[frozenset[Subject]] = frozenset({"root", "intermediate"})
BY_A_PERSON: Final[frozenset[Subject]] = frozenset({"age"})
"""Nothing but what a person does brings it forward."""
BEFORE: Final[frozenset[Phase]] = frozenset({"prepare", "distribute"})
"""The phases in which the next key does not sign yet."""


@dataclass(frozen=True, slots=True)
class Times:
    """How long things take. The one place of these defaults."""

    every: Mapping[Subject, timedelta] = field(
        default_factory=lambda: {
            "root": timedelta(days=2922),
            "intermediate": timedelta(days=180),
            "access": timedelta(days=30),
            "desired": timedelta(days=30),
            "operator": timedelta(days=30),
        }
    )
    """Age at which a key is rotated without being asked for; one that is not named here never is."""
    ahead: timedelta = timedelta(minutes=5)
    """How long a key is known before it is used, at least: what caches and readers of the key set may lag behind."""
    absent: timedelta = timedelta(hours=24)
    """How long agents that are away are waited for. After that their certificate has ended and they enrol again."""
    deadline: timedelta = timedelta(hours=72)
    """How long agents that are there and do not take the next key are waited for."""
    hurry: timedelta = timedelta(minutes=10)
    """In place of these where the key is tainted."""
    spread: timedelta = timedelta(minutes=10)
    """Over which agents spread asking for certificates of the authority that follows."""
    rush: timedelta = timedelta(seconds=10)
    """In place of it where the key is tainted."""
    lasts: Mapping[Subject, timedelta] = field(
        default_factory=lambda: {
            "root": timedelta(days=7),
            "intermediate": timedelta(days=7),
            "access": timedelta(minutes=11),
            "desired": timedelta(days=7),
            "operator": timedelta(hours=1),
        }
    )
    """How long the former is kept at most: what it signed has ended by then (10 minutes and leeway of a token, a day of
    an agent's certificate), or will not be replaced any more."""

    def at_pace(self, pace: float) -> Times:
        """Return all of them multiplied, for a drill that must not last for days."""
        return Times(
            every={subject: time * pace for subject, time in self.every.items()},
            ahead=self.ahead * pace,
            absent=self.absent * pace,
            deadline=self.deadline * pace,
            hurry=self.hurry * pace,
            spread=self.spread * pace,
            rush=self.rush * pace,
            lasts={subject: time * pace for subject, time in self.lasts.items()},
        )


DEFAULTS: Final = Times()


@dataclass(frozen=True, slots=True)
class Rotation:
    """One that is under way. ``since``: when the phase was entered; ``deadline``: of distribution."""

    subject: Subject
    phase: Phase
    begun: datetime
    since: datetime
    deadline: timedelta
    tainted: bool = False
    actor: str = ""
    """Who asked for it; nobody where the key's age did."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is true now, for one rotation."""

    blocked: str = ""
    """What a person has to do before it can go on."""
    behind: AbstractSet[str] = frozenset()
    """Agents that are connected, and fronts, that do not have what the phase brings yet."""
    away: AbstractSet[str] = frozenset()
    """The same of agents that are not connected."""
    in_use_until: datetime | None = None
    """When the last certificate ends that the former signed and that was not replaced; None: there is none."""


class Stay(NamedTuple):
    """Nothing is to be done yet. ``until``: when time alone brings it forward; ``who`` is waited for."""

    why: str
    until: datetime | None = None
    who: tuple[str, ...] = ()


class Go(NamedTuple):
    """Enter this phase; None: the rotation is over."""

    phase: Phase | None


Verdict = Stay | Go


def begin(
    under_way: Mapping[Subject, Rotation],
    subject: Subject,
    now: datetime,
    *,
    tainted: bool = False,
    deadline: timedelta | None = None,
    actor: str = "",
    times: Times = DEFAULTS,
) -> Rotation:
    """Return the first phase of a rotation, also of one that is under way and turns out to be urgent.

    A tainted one begins anew even where its key was replaced a moment ago: it is the present key that others know. What
    else ends with it says :func:`ended_by`.

    Raises:
        Refused: 409 ``rotation-under-way``.
    """
    longest = deadline if deadline is not None else times.hurry if tainted else times.deadline
    known = under_way.get(subject)
    if known is not None and tainted and not known.tainted and subject in BY_A_PERSON and known.phase in BEFORE:
        return replace(known, tainted=True, deadline=longest, actor=actor)  # people may have sealed to the next one
    for other in under_way.values():
        hint = _why_not(other, subject, tainted)
        if hint:
            text = f"A rotation of {other.subject} is under way ({other.phase})."
            raise Refused(text, status=409, code="rotation-under-way", hint=hint)
    return Rotation(subject, "prepare", now, now, longest, tainted, actor)


def ended_by(begun: Rotation, under_way: Mapping[Subject, Rotation]) -> tuple[Subject, ...]:
    """Return the rotations of others that an emergency ends: a root brings its own intermediate, and an intermediate
    that others know does not wait for a next root that nobody relies on yet.
    """
    if not begun.tainted:
        return ()
    if begun.subject == "root":
        return ("intermediate",) if "intermediate" in under_way else ()
    root = under_way.get("root")
    return ("root",) if begun.subject == "intermediate" and root is not None and root.phase in BEFORE else ()


def _why_not(other: Rotation, subject: Subject, tainted: bool) -> str:
    """Return what to do instead of beginning beside another rotation, "" where that may be."""
    is_same = other.subject == subject
    if not is_same and not {other.subject, subject} <= OF_THE_AUTHORITY:
        return ""
    if not tainted:
        return "cloudlunacy pki status shows what it waits for. A key that others know cannot wait: use --taint."
    if is_same and subject in BY_A_PERSON:
        return "Bring it to its end, as cloudlunacy pki status says; then rotate it again."
    if is_same:
        is_urgent = other.tainted and other.phase in BEFORE
        return "It is in a hurry already; cloudlunacy pki status shows what it waits for." if is_urgent else ""
    if subject == "root":
        return ""
    if other.phase == "activate":
        return "The next root is taking over: try again in a moment."
    if other.tainted and other.phase in BEFORE:
        instead = "cloudlunacy pki rotate root --cancel gives it up"
        return f"It brings another intermediate, in a hurry too. Where that takes too long, {instead}."
    return ""


def cancelled(under_way: Mapping[Subject, Rotation], subject: Subject) -> Rotation:
    """Return the rotation that is given up, before its next key took over.

    Raises:
        Refused: 404 ``no-such-rotation``; 409 ``too-late``: then only another rotation leads on.
    """
    known = under_way.get(subject)
    if known is None:
        raise Refused(f"No rotation of {subject} is under way.", status=404, code="no-such-rotation")
    if known.phase not in BEFORE:
        raise Refused(
            f"The next key of {subject} has taken over ({known.phase}).",
            status=409,
            code="too-late",
            hint="Wait for the end; then rotate it again.",
        )
    return known


def due(
    made: Mapping[Subject, datetime], under_way: Mapping[Subject, Rotation], now: datetime, times: Times = DEFAULTS
) -> Subject | None:
    """Return what has become old enough to be rotated by itself, the oldest first.

    ``made``: since when each key signs, of those that can be rotated without a person. Root and intermediate keep each
    other from beginning; nothing else does, because a rotation may wait for a person for long.
    """
    taken = set(under_way) | (OF_THE_AUTHORITY if OF_THE_AUTHORITY & under_way.keys() else frozenset())
    free = {subject: since for subject, since in made.items() if subject in times.every and subject not in taken}
    late = {subject: now - since - times.every[subject] for subject, since in free.items()}
    found = [subject for subject in sorted(late, key=lambda one: late[one], reverse=True) if late[subject] >= _NOTHING]
    return found[0] if found else None


def decide(rotation: Rotation, facts: Facts, now: datetime, times: Times = DEFAULTS) -> Verdict:
    """Say whether a phase whose work is done may be left."""
    if facts.blocked:
        return Stay(facts.blocked)
    match rotation.phase:
        case "distribute":
            return _distributed(rotation, facts, now, times)
        case "wait":
            return _ended(rotation, facts, now, times)
        case _:
            return Go(after(rotation.phase))


def after(phase: Phase) -> Phase | None:
    """Return the phase that follows."""
    following = PHASES.index(phase) + 1
    return PHASES[following] if following < len(PHASES) else None


def enter(rotation: Rotation, phase: Phase, now: datetime) -> Rotation:
    """Return the rotation in another phase."""
    return replace(rotation, phase=phase, since=now)


def seen_at(rotation: Rotation, now: datetime) -> Rotation:
    """Take what was noted in the future for noted now: a clock that jumped forward and back delays nothing for long."""
    return replace(rotation, begun=min(rotation.begun, now), since=min(rotation.since, now))


def _distributed(rotation: Rotation, facts: Facts, now: datetime, times: Times) -> Verdict:
    since, onward = rotation.since, Go("activate")
    ahead = since + (_NOTHING if rotation.tainted else times.ahead)
    if rotation.subject in BY_A_PERSON or rotation.subject == "intermediate":
        return onward  # verifiers of an intermediate hold roots
    if rotation.subject in TOLD_TO_AGENTS:
        end, absent = since + rotation.deadline, since + (_NOTHING if rotation.tainted else times.absent)
        if now >= end:
            return onward
        if facts.behind:
            return Stay("not everybody knows the next key yet", end, tuple(sorted(facts.behind | facts.away)))
        if facts.away and now < absent:
            return Stay("agents that are away do not know the next key yet", min(absent, end), _sorted(facts.away))
    return onward if now >= ahead else Stay("key sets that others keep a copy of are read anew meanwhile", ahead)


def _ended(rotation: Rotation, facts: Facts, now: datetime, times: Times) -> Verdict:
    subject, onward = rotation.subject, Go("remove")
    if subject in BY_A_PERSON:
        return onward
    if rotation.tainted and subject not in OF_THE_AUTHORITY:
        return onward
    last = rotation.since + (times.hurry if rotation.tainted else times.lasts[subject])
    if now >= last:
        return onward
    if subject in ("access", "operator"):
        return Stay("tokens that the former key signed are still good", last)
    if facts.behind or facts.away:
        return Stay("not everybody has left the former key yet", last, _sorted(facts.behind | facts.away))
    ends = facts.in_use_until
    if ends is not None and now < ends:
        return Stay("certificates under the former key were not replaced yet", min(ends, last))
    return onward


def _sorted(names: AbstractSet[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


_NOTHING: Final = timedelta()


# --- as JSON ------------------------------------------------------------------------------------------------------


def to_json(rotation: Rotation) -> dict[str, Any]:
    """Return JSON values."""
    return {
        "subject": rotation.subject,
        "phase": rotation.phase,
        "begun": rotation.begun.isoformat(),
        "since": rotation.since.isoformat(),
        "deadlineSeconds": rotation.deadline.total_seconds(),
        "tainted": rotation.tainted,
        "actor": rotation.actor,
    }


def from_json(said: Mapping[str, Any]) -> Rotation:
    """Return what :func:`to_json` wrote.

    Raises:
        ValueError, KeyError, TypeError: when it is nothing of the kind.
    """
    if said["subject"] not in SUBJECTS or said["phase"] not in PHASES:
        raise ValueError("unknown subject or phase")
    return Rotation(
        said["subject"],
        said["phase"],
        time_of(said["begun"]),
        time_of(said["since"]),
        timedelta(seconds=float(said["deadlineSeconds"])),
        bool(said["tainted"]),
        str(said["actor"]),
    )


def time_of(text: str) -> datetime:
    """Read a time with its zone.

    Raises:
        ValueError: when it is none.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without a zone")
    return time
