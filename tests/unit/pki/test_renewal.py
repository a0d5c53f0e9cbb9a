"""One action for each certificate: issue, renew, keep, wait or drop."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconciler.pki.renewal import (
    LOOK_AGAIN,
    Authorities,
    Delay,
    Desired,
    Drop,
    Held,
    Issue,
    Keep,
    Renew,
    Source,
    Wait,
    actions,
    next_look,
    of_fingerprint,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ACME = Source("acme", "https://acme.example.test/dir")
APPS = Desired(("*.app.example.test",), 90 * DAY, 30 * DAY)


def held(**different: Any) -> Held:
    good = Held(
        APPS.names, NOW - 10 * DAY, NOW + 80 * DAY, APPS.source, "00" * 32, authorities=frozenset({"intermediate"})
    )
    return replace(good, **different)


def test_what_is_missing_is_issued_and_what_is_good_is_kept_until_its_renewal() -> None:
    """Each name gets one action, in order of name; the renewal comes 30 days before the end."""
    found = actions({"new": APPS, "apps": APPS}, {"apps": held()}, NOW)
    assert found == (Keep("apps", NOW + 50 * DAY), Issue("new"))
    assert next_look(found, NOW) == NOW
    assert next_look(found[:1], NOW) == NOW + 50 * DAY
    assert next_look((), NOW) is None


@pytest.mark.parametrize(
    ("have", "reason"),
    [
        (held(names=("*.app.example.test", "example.test")), "names-changed"),
        (held(source=ACME), "issuer-changed"),
        (held(authorities=frozenset({"stolen"})), "issuer-tainted"),
        (held(not_before=NOW + DAY), "not-yet-valid"),
        (held(not_after=NOW), "expired"),
        (held(not_before=NOW - 61 * DAY, not_after=NOW + 29 * DAY), "renewal-due"),
    ],
)
def test_what_is_not_as_wanted_is_renewed_with_the_reason(have: Held, reason: str) -> None:
    """Other names, another issuer, a tainted authority, a wrong time."""
    trust = Authorities(signing=frozenset({"fresh"}), tainted=frozenset({"stolen"}))
    assert actions({"apps": APPS}, {"apps": have}, NOW, authorities=trust) == (Renew("apps", reason),)  # type: ignore[arg-type]


def test_the_case_and_the_order_of_names_are_no_difference() -> None:
    """DNS names have no case."""
    wanted = replace(APPS, names=("b.example.test", "A.example.test"))
    found = actions({"apps": wanted}, {"apps": held(names=("a.example.test", "B.example.test"))}, NOW)
    assert found == (Keep("apps", NOW + 50 * DAY),)


def test_another_directory_is_another_issuer() -> None:
    """Who goes from a staging directory to the real one gets real certificates."""
    have = held(source=Source("acme", "https://staging.example.test/dir"))
    assert actions({"apps": replace(APPS, source=ACME)}, {"apps": have}, NOW) == (Renew("apps", "issuer-changed"),)


def test_nothing_is_gained_under_an_authority_that_is_tainted_itself() -> None:
    """It waits for a better one, and renews all the same once the end is near."""
    trust = Authorities(signing=frozenset({"stolen"}), tainted=frozenset({"stolen"}))
    have = held(authorities=frozenset({"stolen"}))
    wait = Wait("apps", NOW + LOOK_AGAIN, "issuer-tainted", "NoOtherAuthority")
    assert actions({"apps": APPS}, {"apps": have}, NOW, authorities=trust) == (wait,)
    late = NOW + 55 * DAY
    assert actions({"apps": APPS}, {"apps": have}, late, authorities=trust) == (Renew("apps", "renewal-due"),)


def test_a_delay_holds_an_attempt_and_ends() -> None:
    """Back-off and budgets say until when; then the attempt is made."""
    delays = {"apps": Delay(NOW + DAY, "AcmeBackOff")}
    assert actions({"apps": APPS}, {}, NOW, delays=delays) == (Wait("apps", NOW + DAY, "missing", "AcmeBackOff"),)
    assert actions({"apps": APPS}, {}, NOW + DAY, delays=delays) == (Issue("apps"),)
    assert actions({"apps": APPS}, {"apps": held()}, NOW, delays=delays) == (Keep("apps", NOW + 50 * DAY),)


def test_a_server_says_when_to_renew() -> None:
    """Its suggestion comes before the rule, unless it is after the end."""
    wanted, have = {"apps": replace(APPS, source=ACME)}, {"apps": held(source=ACME)}
    assert actions(wanted, have, NOW, suggested={"apps": NOW + DAY}) == (Keep("apps", NOW + DAY),)
    assert actions(wanted, have, NOW, suggested={"apps": NOW}) == (Renew("apps", "renewal-due"),)
    assert actions(wanted, have, NOW, suggested={"apps": NOW + 90 * DAY}) == (Keep("apps", NOW + 50 * DAY),)


def test_a_slow_clock_orders_nothing() -> None:
    """An ACME server's certificate that is not valid yet tells of our clock, and orders are counted."""
    have = held(source=ACME, not_before=NOW + 2 * DAY, not_after=NOW + 92 * DAY)
    (found,) = actions({"apps": replace(APPS, source=ACME)}, {"apps": have}, NOW)
    assert isinstance(found, Keep)


def test_what_nobody_wants_is_dropped_once_no_route_uses_it() -> None:
    """Until then it is served as it is."""
    assert actions({}, {"apps": held()}, NOW) == (Drop("apps"),)
    assert actions({}, {"apps": held()}, NOW, in_use={"apps"}) == (Keep("apps", NOW + LOOK_AGAIN),)


def test_jitter_spreads_over_a_tenth() -> None:
    """It follows from the certificate, so that two looks agree and two certificates differ."""
    assert of_fingerprint(held()) == 0
    assert of_fingerprint(held(fingerprint="ff" * 32)) == 1
    assert actions({"apps": APPS}, {"apps": held(fingerprint="ff" * 32)}, NOW) == (Keep("apps", NOW + 53 * DAY),)
    assert actions({"apps": APPS}, {"apps": held()}, NOW, jitter=lambda _: 1.0) == (Keep("apps", NOW + 53 * DAY),)
