"""What ``cloudlunacy pki status`` shows, as text and JSON: certificates, counts, rotations, what waits for a person."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from cryptography import x509

from reconciler.pki.authority import intermediates, profiles
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.folder import AuthorityKind
from reconciler.pki.authority.pairs import Pair
from reconciler.pki.rotation import DEFAULTS, Rotation, Subject
from reconciler.pki.rotation_file import MOST_NAMED, Kept

_SOON: Final = dt.timedelta(days=90)


def report(authority: Authority, kept: Kept, server: x509.Certificate | None, now: dt.datetime) -> Mapping[str, Any]:
    """Return everything as JSON values; times are RFC 3339. ``server``: what the control plane presents."""
    outstanding = authority.outstanding()
    return {
        "roots": _pairs(authority, "root", now),
        "intermediates": _pairs(authority, "intermediate", now),
        "certificates": {kind: dict(states) for kind, states in sorted(authority.counts(now).items())},
        "server": None if server is None else {"notAfter": _time(server.not_valid_after_utc)},
        "rotations": [_rotation(kept, one) for one in kept.under_way.values()],
        "leftBehind": sorted(kept.left_behind),
        "keys": [_key(subject, since) for subject, since in sorted(kept.signing_since.items())],
        "outstanding": outstanding
        and {
            "reason": outstanding.reason,
            "message": outstanding.message,
            "hint": outstanding.hint,
            "permitted": outstanding.permitted.texts(),
        },
    }


def as_text(said: Mapping[str, Any]) -> str:
    """Return a report for a person."""
    lines: list[str] = []
    for kind in ("root", "intermediate"):
        for one in said[f"{kind}s"]:
            lines += _about(kind, one)
    lines.append("certificates")
    lines += [f"  {kind:<13} {_counted(states)}" for kind, states in said["certificates"].items()]
    if said["server"]:
        lines += ["server's own certificate", f"  valid until   {said['server']['notAfter']}"]
    if said["keys"]:
        lines += ["keys", *(_about_key(one) for one in said["keys"])]
    for one in said["rotations"]:
        lines += ["", *_about_rotation(one)]
    if said["leftBehind"]:
        lines += ["", *_about_left_behind(said["leftBehind"])]
    if said["outstanding"]:
        lines += ["", "waits for a person", f"  {said['outstanding']['message']}", f"  {said['outstanding']['hint']}"]
    return "\n".join(lines)


def _about(kind: str, one: Mapping[str, Any]) -> Iterator[str]:
    yield f"{kind} ({one['role']})"
    yield f"  subject       {one['subject']}"
    yield f"  SHA-256       {one['sha256']}"
    yield f"  valid until   {one['notAfter']}{_state(one['state'])}"
    yield f"  key           {one['key']}"
    if "permitted" in one:
        yield f"  may sign      {', '.join(one['permitted']) or 'nothing'}"


def _about_key(one: Mapping[str, Any]) -> str:
    by_itself = f"; rotated by itself on {one['due'][:10]}" if one["due"] else ""
    return f"  {one['subject']:<13} signs since {one['since'][:10]}{by_itself}"


def _about_rotation(one: Mapping[str, Any]) -> Iterator[str]:
    urgent = ", known to others" if one["tainted"] else ""
    yield f"rotation of {one['subject']} (since {one['begun']}{urgent})"
    yield f"  phase         {one['phase']}, since {one['since']}"
    waits = one["waiting"]
    if waits:
        yield f"  waits         {waits['why']}"
        if waits["who"]:
            more = f" and {waits['count'] - len(waits['who'])} more" if waits["count"] > len(waits["who"]) else ""
            yield f"  for           {', '.join(waits['who'])}{more}"
        if waits["until"]:
            yield f"  at most until {waits['until']}"


def _about_left_behind(names: Sequence[str]) -> Iterator[str]:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    yield "agents that did not take a next key in time"
    yield f"  {', '.join(names[:MOST_NAMED])}{more}"
    yield "  Those that do not come back by themselves enrol again: cloudlunacy token create --agent NAME, then"
    yield "  cloudlunacy agent enrol on that machine."


def _rotation(kept: Kept, one: Rotation) -> Mapping[str, Any]:
    waiting = kept.waiting.get(one.subject)
    return {
        "subject": one.subject,
        "phase": one.phase,
        "begun": _time(one.begun),
        "since": _time(one.since),
        "tainted": one.tainted,
        "waiting": waiting
        and {
            "why": waiting.why,
            "who": list(waiting.who),
            "count": waiting.count,
            "until": waiting.until and _time(waiting.until),
        },
    }


def _key(subject: Subject, since: dt.datetime) -> Mapping[str, Any]:
    every = DEFAULTS.every.get(subject)
    return {"subject": subject, "since": _time(since), "due": every and _time(since + every)}


def _state(state: str) -> str:
    return "" if state == "good" else f" ({state})"


def _counted(states: Mapping[str, int]) -> str:
    return ", ".join(f"{states[state]} {state}" for state in ("good", "expired", "revoked") if state in states)


def _pairs(authority: Authority, kind: AuthorityKind, now: dt.datetime) -> list[Mapping[str, Any]]:
    return [
        {"role": role, **_of(pair, now), **({"permitted": _permitted(pair)} if kind == "intermediate" else {})}
        for role, pair in authority.pairs(kind).items()
    ]


def _of(pair: Pair, now: dt.datetime) -> Mapping[str, Any]:
    certificate = pair.certificate
    return {
        "subject": certificate.subject.rfc4514_string(),
        "sha256": profiles.fingerprint(certificate),
        "notBefore": _time(certificate.not_valid_before_utc),
        "notAfter": _time(certificate.not_valid_after_utc),
        "state": _state_of(pair, now),
        "key": "sealed" if pair.sealed else "clear" if pair.complete else "offline",
    }


def _permitted(pair: Pair) -> tuple[str, ...]:
    return intermediates.permitted_of(pair.certificate).texts()


def _state_of(pair: Pair, now: dt.datetime) -> str:
    begins, ends = pair.certificate.not_valid_before_utc, pair.certificate.not_valid_after_utc
    if now < begins:
        return "not valid yet"
    if now > ends:
        return "expired"
    return "ends soon" if now > ends - _SOON else "good"


def _time(time: dt.datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
