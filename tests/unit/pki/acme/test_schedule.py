from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from reconciler.pki.acme.schedule import (
    BUDGET,
    Budget,
    History,
    Ledger,
    Lifetime,
    Window,
    failed,
    may_order,
    may_try,
    name_set,
    ordered,
    rehearsal_succeeded,
    renewal_of,
    succeeded,
    suggested,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
URL = "https://acme.example.test/dir"


def test_lists_of_the_same_names_share_a_budget() -> None:
    """Order, case and repetition make no other set."""
    assert name_set(["b.test", "A.test", "a.test"]) == name_set(("a.test", "b.test")) == "a.test,b.test"


@pytest.mark.parametrize(
    ("failures", "minutes"), [(0, 1), (1, 10), (2, 100), (3, 24 * 60), (4, 24 * 60), (400, 24 * 60)]
)
def test_pauses_after_failures(failures: int, minutes: int) -> None:
    """1, 10, 100 minutes, then daily; the jitter is a tenth at most and only ever later."""
    history = History(failures=failures)
    assert failed(history, NOW, 0.0).wait_until == NOW + timedelta(minutes=minutes)
    assert failed(history, NOW, 1.0).wait_until == NOW + timedelta(minutes=minutes) * 1.1


def test_retry_after_is_waited_for_when_it_is_longer() -> None:
    """The longer of both counts, up to a week."""
    assert failed(History(), NOW, 0.0, retry_after=3600).wait_until == NOW + timedelta(hours=1)
    assert failed(History(), NOW, 0.0, retry_after=1).wait_until == NOW + timedelta(minutes=1)
    assert failed(History(), NOW, 0.0, retry_after=1e300).wait_until == NOW + 7 * DAY


def test_back_off_holds_until_its_end() -> None:
    """An attempt is held to the second, and the reason is told."""
    history = failed(failed(History(), NOW, 0.0), NOW, 0.0)
    wait = may_try(history, NOW + timedelta(minutes=10) - timedelta(seconds=1))
    assert wait is not None
    assert (wait.reason, wait.why) == ("AcmeBackOff", "the last attempts failed, 2 times in a row")
    assert may_try(history, NOW + timedelta(minutes=10)) is None


def test_success_forgets_failures_and_keeps_the_count() -> None:
    """A certificate ends back-off and order; the budget still knows what was ordered."""
    history = failed(ordered(History(order_url="https://x"), NOW), NOW, 0.0)
    assert succeeded(history) == History(orders=(NOW,))
    assert rehearsal_succeeded(history) == History(orders=(NOW,), rehearsed=True)


def test_the_sixth_order_of_a_week_waits_for_the_first_to_be_a_week_old() -> None:
    """Five orders for one set in 7 days; another set is free."""
    history = History()
    for day in range(5):
        history = ordered(history, NOW + day * DAY)
    ledger = Ledger(URL, {"a.test": history})
    wait = may_order(ledger, "a.test", BUDGET, NOW + 5 * DAY)
    assert wait is not None
    assert (wait.until, wait.reason) == (NOW + 7 * DAY, "AcmeBudget")
    assert wait.why == "5 orders for exactly these names in 7 days are the most"
    assert may_order(ledger, "a.test", BUDGET, NOW + 7 * DAY) is None
    assert may_order(ledger, "a.test,b.test", BUDGET, NOW + 5 * DAY) is None


def test_all_names_together_have_a_budget_of_a_day() -> None:
    """Many sets cannot burn together what the account is allowed."""
    ledger = Ledger(URL, {f"{n}.test": History(orders=(NOW,)) for n in range(3)})
    wait = may_order(ledger, "new.test", Budget(total=3), NOW + timedelta(hours=23))
    assert wait is not None
    assert (wait.until, wait.why) == (NOW + DAY, "3 orders for all names together in one day are the most")
    assert may_order(ledger, "new.test", Budget(total=3), NOW + DAY) is None


def test_a_budget_of_none_orders_nothing() -> None:
    """With 0 as the most, no order is ever placed."""
    assert may_order(Ledger(URL), "a.test", Budget(total=0), NOW) is not None


def test_a_ledger_forgets_what_no_decision_looks_at() -> None:
    """Orders that are too old go, and with them histories that say nothing more."""
    old = History(orders=(NOW - 8 * DAY,))
    known = History(orders=(NOW - 8 * DAY, NOW), rehearsed=True)
    assert Ledger(URL, {"old.test": old, "known.test": known}).seen_at(NOW, BUDGET) == Ledger(
        URL, {"known.test": History(orders=(NOW,), rehearsed=True)}
    )


def test_a_clock_that_went_back_keeps_a_wait_as_long_as_it_was() -> None:
    """What failed two days ahead of now has failed now."""
    ahead = failed(History(), NOW + 2 * DAY, 0.0)
    assert ahead.seen_at(NOW).wait_until == NOW + timedelta(minutes=1)


def lifetime(days: int = 90) -> Lifetime:
    return Lifetime("one", NOW, NOW + days * DAY)


@pytest.mark.parametrize(
    ("days", "renew_before", "random", "day"),
    [(90, 30, 0.0, 60), (90, 30, 1.0, 63), (6, 30, 0.0, 3), (90, 80, 0.0, 45), (90, 0, 0.5, 90)],
)
def test_when_a_certificate_is_renewed(days: int, renew_before: int, random: float, day: int) -> None:
    """When renewBefore is left, spread over a tenth of it; when half of the lifetime is over at the earliest."""
    assert renewal_of(None, lifetime(days), renew_before * DAY, NOW, random).at == NOW + day * DAY


def test_another_renew_before_draws_anew() -> None:
    """Who asks for earlier renewal gets it for certificates that are there."""
    first = renewal_of(None, lifetime(), 30 * DAY, NOW, 0.5)
    assert renewal_of(first, lifetime(), 40 * DAY, NOW, 0.0).at == NOW + 50 * DAY


def test_another_certificate_draws_anew_and_forgets_the_window() -> None:
    """A suggestion is about one certificate."""
    told = suggested(renewal_of(None, lifetime(), 30 * DAY, NOW, 0.5), lifetime(), Window(NOW, NOW + DAY), NOW, 0.5)
    fresh = renewal_of(told, Lifetime("two", NOW, NOW + 90 * DAY), 30 * DAY, NOW, 0.0)
    assert (fresh.at, fresh.window, fresh.ask_at) == (NOW + 60 * DAY, None, NOW)


def test_a_window_in_the_past_means_now() -> None:
    """A server that wants a certificate replaced at once suggests a window that has passed."""
    own = renewal_of(None, lifetime(), 30 * DAY, NOW, 0.5)
    told = suggested(own, lifetime(), Window(NOW - DAY, NOW - timedelta(hours=1)), NOW, 0.9, retry_after=3600)
    assert told.at < NOW
    assert told.ask_at == NOW + timedelta(hours=1)


@pytest.mark.parametrize(
    "window", [None, Window(NOW + DAY, NOW + DAY), Window(NOW + DAY, NOW), Window(NOW, NOW + 91 * DAY)]
)
def test_a_window_that_makes_no_sense_is_none(window: Window | None) -> None:
    """Empty, reversed, beyond the end: then our own moment stays, and we ask again in six hours."""
    own = renewal_of(None, lifetime(), 30 * DAY, NOW, 0.5)
    told = suggested(own, lifetime(), window, NOW, 0.5)
    assert (told.at, told.window) == (own.at, None)
    assert told.ask_at == NOW + timedelta(hours=6)
