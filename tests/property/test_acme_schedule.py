"""Whatever happens at an ACME server and to the clock, orders stay within the budgets and renewals come in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from reconciler.pki.acme.ledger import from_json, to_json
from reconciler.pki.acme.schedule import (
    BACKOFF,
    LONGEST_RETRY_AFTER,
    Budget,
    History,
    Ledger,
    Lifetime,
    Renewal,
    Window,
    failed,
    may_order,
    may_try,
    ordered,
    renewal_of,
    succeeded,
    suggested,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
URL = "https://acme.example.test/dir"
NAMES = ("a.example.test", "b.example.test", "a.example.test,b.example.test")

share = st.floats(0, 1)
seconds = st.one_of(st.none(), st.floats(0, 1e12), st.just(float("inf")), st.just(float("nan")), st.floats(-1e9, 0))
moments = st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
spans = st.timedeltas(timedelta(0), timedelta(days=800))
steps = st.lists(
    st.tuples(st.sampled_from(NAMES), st.timedeltas(timedelta(0), timedelta(days=3)), st.booleans(), seconds, share),
    max_size=60,
)


@given(steps)
def test_no_budget_is_ever_overdrawn(steps: list[tuple[str, timedelta, bool, float | None, float]]) -> None:
    """Of a caller who tries whenever it may, no 7 days have 6 orders of one set, and no day has 8 of all."""
    budget = Budget(per_names=5, total=7)
    ledger, now = Ledger(URL), START
    placed: list[tuple[datetime, str]] = []
    for names, pause, good, retry_after, random in steps:
        now += pause
        if may_try(ledger.of(names), now) is not None or may_order(ledger, names, budget, now) is not None:
            continue
        placed.append((now, names))
        history = ordered(ledger.of(names), now)
        history = succeeded(history) if good else failed(history, now, random, retry_after=retry_after)
        ledger = ledger.having(names, history).seen_at(now, budget)
    for moment, names in placed:
        week = [one for one, whose in placed if whose == names and moment - timedelta(days=7) < one <= moment]
        day = [one for one, _ in placed if moment - timedelta(days=1) < one <= moment]
        assert len(week) <= 5
        assert len(day) <= 7


@given(steps, st.lists(st.timedeltas(timedelta(days=-900), timedelta(days=900)), max_size=10))
def test_jumps_of_the_clock_stop_nothing_for_long(
    steps: list[tuple[str, timedelta, bool, float | None, float]], jumps: list[timedelta]
) -> None:
    """Once the clock is right again, everything may be tried within the longest wait."""
    budget = Budget(per_names=2, total=3)
    ledger = Ledger(URL)
    for jump, (names, pause, _, retry_after, random) in zip(jumps, steps, strict=False):
        now = START + jump + pause
        ledger = ledger.seen_at(now, budget)
        history = failed(ordered(ledger.of(names), now), now, random, retry_after=retry_after)
        ledger = ledger.having(names, history)
    ledger = ledger.seen_at(START, budget)
    later = START + LONGEST_RETRY_AFTER * 1.1 + timedelta(seconds=1)
    for names in NAMES:
        assert may_try(ledger.of(names), later) is None
        assert may_order(ledger, names, budget, later) is None


@given(st.integers(0, 50), share, seconds)
def test_a_failure_waits_its_turn_and_what_was_asked_for(count: int, random: float, retry_after: float | None) -> None:
    """1, 10, 100 minutes, then a day, at most a tenth more, and never less than a sane Retry-After."""
    history = failed(History(failures=count), START, random, retry_after=retry_after)
    assert history.wait_until is not None
    waits = history.wait_until - START
    least = BACKOFF[min(count, 3)]
    if retry_after is not None and 0 < retry_after <= LONGEST_RETRY_AFTER.total_seconds():
        least = max(least, timedelta(seconds=retry_after))
    assert waits >= least
    assert waits <= max(BACKOFF[min(count, 3)], LONGEST_RETRY_AFTER) * 1.1 + timedelta(milliseconds=1)
    assert may_try(history, history.wait_until) is None
    assert may_try(history, history.wait_until - timedelta(seconds=1)) is not None


@given(moments, st.timedeltas(timedelta(minutes=1), timedelta(days=800)), spans, moments, share)
def test_a_renewal_leaves_time_and_half_of_the_lifetime_is_used(
    start: datetime, lives: timedelta, renew_before: timedelta, now: datetime, random: float
) -> None:
    """Never after the end, never in the first half of the lifetime, never sooner than asked for."""
    lifetime = Lifetime("one", start, start + lives)
    at = renewal_of(None, lifetime, renew_before, now, random).at
    left = min(renew_before, lives / 2)
    assert lifetime.not_after - left <= at <= lifetime.not_after - left * 0.9 + timedelta(microseconds=2)


@given(moments, spans, moments, spans, moments, share, seconds)
def test_a_suggestion_is_followed_only_within_the_lifetime(
    start: datetime,
    lives: timedelta,
    window_start: datetime,
    window_span: timedelta,
    now: datetime,
    random: float,
    retry_after: float | None,
) -> None:
    """The moment lies in the suggested window, or is what it was where that makes no sense; the next look is soon."""
    lifetime = Lifetime("one", start, start + lives)
    window = Window(window_start, window_start + window_span)
    own = renewal_of(None, lifetime, timedelta(days=30), now, random)
    told = suggested(own, lifetime, window, now, random, retry_after=retry_after)
    if window.start < window.end <= lifetime.not_after:
        assert window.start <= told.at <= window.end
    else:
        assert told.at == own.at
    assert told.at <= lifetime.not_after
    assert timedelta(minutes=1) <= told.ask_at - now <= timedelta(days=1)


@given(moments, spans, moments, share, share)
def test_a_moment_is_drawn_once(start: datetime, lives: timedelta, now: datetime, first: float, second: float) -> None:
    """The same certificate and the same window give the same moment, whatever is drawn later."""
    lifetime = Lifetime("one", start, start + lives)
    own = renewal_of(None, lifetime, timedelta(days=30), now, first)
    assert renewal_of(own, lifetime, timedelta(days=30), now, second) == own
    window = Window(start, start + lives)
    told = suggested(own, lifetime, window, now, first)
    assert suggested(told, lifetime, window, now, second) == told
    assert renewal_of(told, lifetime, timedelta(days=30), now, second) == told
    assert suggested(told, lifetime, None, now, second).at == told.at


windows = st.builds(Window, moments, moments)
renewals = st.builds(Renewal, st.text(max_size=20), moments, moments, st.none() | windows)
histories = st.builds(
    History,
    orders=st.lists(moments, max_size=6).map(tuple),
    failures=st.integers(0, 9),
    failed_at=st.none() | moments,
    wait_until=st.none() | moments,
    rehearsed=st.booleans(),
    order_url=st.text(max_size=20),
    renewal=st.none() | renewals,
)


@given(st.dictionaries(st.text(max_size=20), histories, max_size=5))
def test_what_is_written_is_read_again(known: dict[str, History]) -> None:
    """A ledger goes through JSON unchanged; one of another directory is empty."""
    ledger = Ledger(URL, known)
    assert from_json(to_json(ledger), URL) == ledger
    assert from_json(to_json(ledger), "https://other.example.test") == Ledger("https://other.example.test")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_a_damaged_ledger_is_none(text: bytes) -> None:
    """Whatever stands in the file, reading it raises nothing."""
    assert from_json(text, URL) is None or text
