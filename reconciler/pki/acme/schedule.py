"""When an order may be placed, and when a certificate is renewed. PURE: clock and randomness are arguments.

Three things hold an order back, in this order:

1. back-off: 1, 10, 100 minutes after the first failures in a row, then daily; longer where the server said Retry-After;
2. the budget of the exact set of names: 5 orders in 7 days (what Let's Encrypt issues for one set);
3. the budget of all names together: per day, so that no mistake burns what the server allows the account.

Renewal is at a random point of the window that the server suggests (RFC 9773, 4.2). Where it suggests none, or nothing
that makes sense, it is when ``renew_before`` of the lifetime is left, spread over a tenth of that time.

``random`` is always in [0, 1]. Times are aware datetimes. The clock of a machine can jump: what was noted ahead
of now is taken for having been noted now (:meth:`History.seen_at`), so that a jump forward and back stops nothing for
long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from pydantic import AwareDatetime

BACKOFF: Final = (timedelta(minutes=1), timedelta(minutes=10), timedelta(minutes=100), timedelta(days=1))
"""After the first, second, … failure in a row; the last one from then on."""
BACKOFF_JITTER: Final = 0.1
"""Up to this share comes on top."""
LONGEST_RETRY_AFTER: Final = timedelta(days=7)
"""No server keeps us from trying for longer, whatever it says."""
RENEWAL_SPREAD: Final = 0.1
LARGEST_SHARE_LEFT: Final = 0.5
"""Of a certificate that lives for less than was asked for, at most this share is left at its renewal."""
ASK_AGAIN: Final = timedelta(hours=6)
"""When to ask for the suggested window again where the server does not say (RFC 9773, 4.3)."""
ASK_SOONEST: Final = timedelta(minutes=1)
ASK_LATEST: Final = timedelta(days=1)

NameSet = str
"""The names of a certificate, in lower case, sorted, once each, joined by commas: which names share a budget."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How many orders may be placed at the production directory."""

    per_names: int = 5
    names_window: timedelta = timedelta(days=7)
    total: int = 50
    total_window: timedelta = timedelta(days=1)


BUDGET: Final = Budget()


@dataclass(frozen=True, slots=True)
class Window:
    """When the server suggests to renew (RFC 9773, 4.2)."""

    start: AwareDatetime
    end: AwareDatetime


@dataclass(frozen=True, slots=True)
class Lifetime:
    """When one certificate is valid. ``certificate`` tells it from others."""

    certificate: str
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Renewal:
    """When one certificate is to be renewed, drawn once. ``ask_at``: when to ask for a suggestion the next time."""

    certificate: str
    at: AwareDatetime
    ask_at: AwareDatetime
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class History:
    """What is remembered of one set of names."""

    orders: tuple[AwareDatetime, ...] = ()
    """When orders were placed at the production directory; only those that the budget still counts."""
    failures: int = 0
    """In a row."""
    failed_at: AwareDatetime | None = None
    wait_until: AwareDatetime | None = None
    rehearsed: bool = False
    """An order at the staging directory came to its end."""
    order_url: str = ""
    """The order that is under way at the production directory, "" for none."""
    renewal: Renewal | None = None

    def seen_at(self, now: datetime) -> History:
        """Take what was noted in the future for noted now, and waits for as long as they were meant to be."""
        failed_at, wait_until = self.failed_at, self.wait_until
        if failed_at is not None and wait_until is not None and failed_at > now:
            failed_at, wait_until = now, now + (wait_until - failed_at)
        return replace(
            self, orders=tuple(min(each, now) for each in self.orders), failed_at=failed_at, wait_until=wait_until
        )


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything that is remembered of one production directory."""

    directory: str
    histories: Mapping[NameSet, History] = field(default_factory=dict)

    def of(self, names: NameSet) -> History:
        """Return what is known of a set of names."""
        return self.histories.get(names, History())

    def having(self, names: NameSet, history: History) -> Ledger:
        """Return the ledger with another history for one set of names."""
        return replace(self, histories={**self.histories, names: history})

    def seen_at(self, now: datetime, budget: Budget) -> Ledger:
        """Return the ledger without what no decision looks at any more, and with times that are not ahead of now."""
        oldest = now - max(budget.names_window, budget.total_window)
        histories = {}
        for names, history in self.histories.items():
            seen = history.seen_at(now)
            seen = replace(seen, orders=tuple(each for each in seen.orders if each > oldest))
            if seen != History():
                histories[names] = seen
        return replace(self, histories=histories)


@dataclass(frozen=True, slots=True)
class Wait:
    """No order now. ``why`` ends a sentence that begins with "No order is placed before <until>: "."""

    until: datetime
    why: str
    reason: str


def name_set(names: Iterable[str]) -> NameSet:
    """Return what all lists of the same names have in common."""
    return ",".join(sorted({name.lower() for name in names}))


def may_try(history: History, now: datetime) -> Wait | None:
    """Say whether back-off holds an attempt, even one that goes on with an order that was placed already."""
    history = history.seen_at(now)
    if history.wait_until is None or history.wait_until <= now:
        return None
    times = "once" if history.failures == 1 else f"{history.failures} times in a row"
    return Wait(history.wait_until, f"the last attempts failed, {times}", "AcmeBackOff")


def may_order(ledger: Ledger, names: NameSet, budget: Budget, now: datetime) -> Wait | None:
    """Say whether the budgets hold a new order at the production directory."""
    ledger = ledger.seen_at(now, budget)
    mine = ledger.of(names).orders
    everyone = [placed for history in ledger.histories.values() for placed in history.orders]
    waits = []
    if (until := _spent_until(mine, budget.per_names, budget.names_window, now)) is not None:
        days = _days(budget.names_window)
        waits.append(Wait(until, f"{budget.per_names} orders for exactly these names in {days} are the most", _BUDGET))
    if (until := _spent_until(everyone, budget.total, budget.total_window, now)) is not None:
        days = _days(budget.total_window)
        waits.append(Wait(until, f"{budget.total} orders for all names together in {days} are the most", _BUDGET))
    return max(waits, key=lambda wait: wait.until, default=None)


def ordered(history: History, now: datetime) -> History:
    """Count an order, before it is placed."""
    return replace(history.seen_at(now), orders=(*history.seen_at(now).orders, now), order_url="")


def failed(history: History, now: datetime, random: float, *, retry_after: float | None = None) -> History:
    """Count a failure. ``retry_after``: seconds that the server asked for; the jitter comes on top of them too."""
    pause = BACKOFF[min(history.failures, len(BACKOFF) - 1)]
    if retry_after is not None:
        asked = timedelta(seconds=min(max(0.0, retry_after), LONGEST_RETRY_AFTER.total_seconds()))
        pause = max(pause, asked)
    until = now + pause * (1 + BACKOFF_JITTER * random)
    return replace(history.seen_at(now), failures=history.failures + 1, failed_at=now, wait_until=until)


def succeeded(history: History) -> History:
    """Forget failures and the order: the certificate is there. Orders stay counted."""
    return replace(history, failures=0, failed_at=None, wait_until=None, order_url="", renewal=None)


def forgiven(history: History) -> History:
    """Forget failures: somebody has mended what failed. Orders stay counted."""
    return replace(history, failures=0, failed_at=None, wait_until=None)


def rehearsal_succeeded(history: History) -> History:
    """Note that the staging directory issued for these names; failures on the way there are over."""
    return replace(history, failures=0, failed_at=None, wait_until=None, rehearsed=True)


def renewal_of(
    known: Renewal | None, lifetime: Lifetime, renew_before: timedelta, now: datetime, random: float
) -> Renewal:
    """Return when to renew a certificate; drawn anew only for another certificate or another ``renew_before``."""
    earliest, latest = _own_window(lifetime, renew_before)
    if known is not None and known.certificate == lifetime.certificate:
        if known.window is not None or earliest <= known.at <= latest:
            return known
        return replace(known, at=_point(earliest, latest, random))
    return Renewal(lifetime.certificate, _point(earliest, latest, random), ask_at=now)


def suggested(
    renewal: Renewal,
    lifetime: Lifetime,
    window: Window | None,
    now: datetime,
    random: float,
    *,
    retry_after: float | None = None,
) -> Renewal:
    """Take note of what the server suggests; None when it could not be asked: then what was known stays.

    A window that is empty, or ends after the certificate has, is as if nothing had been said.
    """
    pause = ASK_AGAIN if retry_after is None else _seconds_within(retry_after, ASK_SOONEST, ASK_LATEST)
    renewal = replace(renewal, ask_at=now + pause)
    if window is None or window == renewal.window or not window.start < window.end <= lifetime.not_after:
        return renewal
    return replace(renewal, window=window, at=_point(window.start, window.end, random))


_BUDGET: Final = "AcmeBudget"


def _own_window(lifetime: Lifetime, renew_before: timedelta) -> tuple[datetime, datetime]:
    left = min(renew_before, (lifetime.not_after - lifetime.not_before) * LARGEST_SHARE_LEFT)
    earliest = lifetime.not_after - left
    return earliest, earliest + left * RENEWAL_SPREAD


def _point(start: datetime, end: datetime, random: float) -> datetime:
    return start + (end - start) * random


def _spent_until(placed: Iterable[datetime], most: int, window: timedelta, now: datetime) -> datetime | None:
    """Return when one more order fits, None for now."""
    counted = sorted(each for each in placed if each > now - window)
    if len(counted) < most:
        return None
    return counted[-most] + window if most > 0 else now + window


def _seconds_within(seconds: float, least: timedelta, most: timedelta) -> timedelta:
    return timedelta(seconds=min(max(least.total_seconds(), seconds), most.total_seconds()))


def _days(window: timedelta) -> str:
    return "one day" if window == timedelta(days=1) else f"{window / timedelta(days=1):g} days"
