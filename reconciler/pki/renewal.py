"""Which certificates are to be issued, renewed, kept or dropped now. PURE: clock and jitter are arguments.

Desired certificates × what is held × what holds an attempt back × now → one action for each name, in order of name.
Carrying an action out and asking again ends with nothing but Keep and Wait, however often one asks.

A certificate is renewed when ``renew_before`` of its lifetime is left (half of it at the most), spread over a tenth of
that time; at another moment where its ACME server suggested one (RFC 9773). It is renewed at once when its names, its
issuer or the authority above it are not the ones that are wanted any more. Until the new one is there the old one
stays in service, whatever is the matter with it: dropping is for certificates that nobody wants and no route uses.

Times are aware datetimes. A clock that jumps makes nothing worse than a renewal that comes too early: a certificate of
an ACME server that is not valid yet is taken for a clock that is slow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple

from reconciler.pki.acme.schedule import Lifetime, name_set, renewal_of

LOOK_AGAIN: Final = timedelta(hours=1)
"""When to look again at what no clock will change."""
_JITTER_DIGITS: Final = 8

Reason = Literal[
    "missing",
    "names-changed",
    "issuer-changed",
    "issuer-tainted",
    "not-yet-valid",
    "expired",
    "renewal-due",
]


Issuing = Literal["internal", "acme", "provided"]


class Source(NamedTuple):
    """Who signs: the fleet's own authority, an ACME server by the URL of its directory, or whoever is not asked."""

    issuer: Issuing = "internal"
    directory: str = ""


INTERNAL: Final = Source()


@dataclass(frozen=True, slots=True)
class Desired:
    """A certificate that shall exist. ``lifetime`` is asked for; an ACME server may decide otherwise."""

    names: tuple[str, ...]
    lifetime: timedelta
    renew_before: timedelta
    source: Source = INTERNAL


@dataclass(frozen=True, slots=True)
class Held:
    """A certificate that is there, with its key.

    ``not_after`` is the earliest of the chain: a leaf is worth nothing without what is above it. ``fingerprint`` is the
    leaf's SHA-256, ``authorities`` are those of the public keys above it (``profiles.authority_id``), all as hex.
    """

    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    source: Source
    fingerprint: str
    authorities: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Authorities:
    """Keys of authorities, by the SHA-256 of the public one as hex (``profiles.authority_id``).

    ``signing`` is what would be above an internal certificate that is issued now; under ``tainted`` nothing shall be
    served any more: a key that is known to others, or an authority that is about to leave the bundle.
    """

    signing: frozenset[str] = frozenset()
    tainted: frozenset[str] = frozenset()

    @property
    def usable(self) -> bool:
        """Whether a new internal certificate would be better than one under a tainted authority."""
        return self.signing.isdisjoint(self.tainted)


@dataclass(frozen=True, slots=True)
class Delay:
    """Why no attempt is made for a name before ``until``: back-off, a budget, an authority that waits for a person.

    ``reason`` is one word, ``message`` the sentence for people.
    """

    until: datetime
    reason: str
    message: str = ""


class Issue(NamedTuple):
    """There is none: make the first one."""

    name: str
    reason: Reason = "missing"


class Renew(NamedTuple):
    """Make another one in place of the one that is held."""

    name: str
    reason: Reason


class Keep(NamedTuple):
    """All is well, or nothing can be done; look again at ``until``."""

    name: str
    until: datetime


class Wait(NamedTuple):
    """One should be made, and may not be before ``until``. ``due`` says why it should, ``reason`` why it may not."""

    name: str
    until: datetime
    due: Reason
    reason: str


class Drop(NamedTuple):
    """Nobody wants it and nothing uses it."""

    name: str


Action = Issue | Renew | Keep | Wait | Drop
Jitter = Callable[[Held], float]
"""A share in [0, 1] that stays the same for a certificate, so that asking twice gives the same answer."""
NO_AUTHORITIES: Final = Authorities()
NO_DELAYS: Final[Mapping[str, Delay]] = {}
NO_SUGGESTIONS: Final[Mapping[str, datetime]] = {}


def of_fingerprint(held: Held) -> float:
    """The default jitter: as good as random among certificates, and remembered nowhere."""
    digits = held.fingerprint[:_JITTER_DIGITS]
    return int(digits, 16) / int("f" * len(digits), 16)


def actions(
    desired: Mapping[str, Desired],
    held: Mapping[str, Held],
    now: datetime,
    *,
    in_use: AbstractSet[str] = frozenset(),
    delays: Mapping[str, Delay] = NO_DELAYS,
    suggested: Mapping[str, datetime] = NO_SUGGESTIONS,
    authorities: Authorities = NO_AUTHORITIES,
    jitter: Jitter = of_fingerprint,
) -> tuple[Action, ...]:
    """Return one action for each name that is desired or held, in order of name.

    ``in_use``: names of certificates that routes in service need, desired or not. ``suggested``: when to renew, of
    those whose server said so (:meth:`reconciler.pki.acme.issuer.Issuer.renewal`).
    """
    found: list[Action] = []
    for name in sorted(desired.keys() | held.keys()):
        wanted, have = desired.get(name), held.get(name)
        if wanted is None:
            assert have is not None
            found.append(Keep(name, now + LOOK_AGAIN) if name in in_use else Drop(name))
        elif have is None:
            found.append(_unless_delayed(Issue(name), delays, now))
        else:
            at = _renewal_time(wanted, have, suggested.get(name), jitter(have))
            reason = _why(wanted, have, now, at, authorities)
            if reason is None:
                found.append(_kept(name, have, now, at, authorities))
            else:
                found.append(_unless_delayed(Renew(name, reason), delays, now))
    return tuple(found)


def next_look(found: tuple[Action, ...], now: datetime) -> datetime | None:
    """Return when :func:`actions` is to be asked again; now where something is to be done, None for never."""
    times = [one.until if isinstance(one, (Keep, Wait)) else now for one in found]
    return min(times, default=None)


def _kept(name: str, have: Held, now: datetime, at: datetime, authorities: Authorities) -> Keep | Wait:
    if have.authorities.isdisjoint(authorities.tainted):
        return Keep(name, at)
    return Wait(name, min(at, now + LOOK_AGAIN), "issuer-tainted", "NoOtherAuthority")  # no better one can be had yet


def _why(wanted: Desired, have: Held, now: datetime, at: datetime, authorities: Authorities) -> Reason | None:
    """Say why a certificate must be replaced, None where it need not be."""
    if name_set(wanted.names) != name_set(have.names):
        return "names-changed"
    if wanted.source != have.source:
        return "issuer-changed"
    tainted = not have.authorities.isdisjoint(authorities.tainted)
    if tainted and (authorities.usable or wanted.source.issuer == "acme"):
        return "issuer-tainted"
    if have.not_after <= now:
        return "expired"
    if now < have.not_before and wanted.source.issuer == "internal":
        return "not-yet-valid"
    return "renewal-due" if at <= now else None


def _renewal_time(wanted: Desired, have: Held, suggested: datetime | None, jitter: float) -> datetime:
    """Return when to renew. What a server suggests counts only where it comes before the end."""
    lifetime = Lifetime(have.fingerprint, have.not_before, have.not_after)
    own = renewal_of(None, lifetime, wanted.renew_before, have.not_before, jitter).at
    return suggested if suggested is not None and suggested < have.not_after else own


def _unless_delayed(action: Issue | Renew, delays: Mapping[str, Delay], now: datetime) -> Action:
    delay = delays.get(action.name)
    if delay is None or delay.until <= now:
        return action
    return Wait(action.name, delay.until, action.reason, delay.reason)
