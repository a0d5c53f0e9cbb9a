from __future__ import annotations

import datetime as dt
from typing import Any, Final

import pytest

from reconciler.steps.probing import AGAIN, RETRY, due, judged
from reconciler.traefik.probe import probe_name
from tests.support.pairs import FakeAuthority

NOW: Final = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
SECOND: Final = dt.timedelta(seconds=1)
PAIR: Final = FakeAuthority().pair("shop.cloudlunacy.test")
OURS: Final = PAIR.held.fingerprint
OTHER: Final = "0" * 64


def looked(at: dt.datetime, seen: str, expected: str = OURS) -> Any:
    return {"shop": (judged("front-1", "shop.cloudlunacy.test", expected, seen, at),)}


def test_a_leaf_is_held_against_the_published_one() -> None:
    """Nothing is said of the same one; any other is said to be another."""
    assert judged("front-1", "a.test", OURS, OURS, NOW).message == ""
    other = judged("front-1", "a.test", OURS, OTHER, NOW)
    assert (other.matches, other.fingerprint) == (False, OTHER)
    assert "another certificate" in other.message


@pytest.mark.parametrize(
    ("probes", "now", "expected"),
    [
        ({}, NOW, ("shop",)),
        (looked(NOW, OURS), NOW, ()),
        (looked(NOW, OURS), NOW + AGAIN - SECOND, ()),
        (looked(NOW, OURS), NOW + AGAIN, ("shop",)),
        (looked(NOW, OURS), NOW - AGAIN, ("shop",)),
        (looked(NOW, OTHER, OTHER), NOW, ("shop",)),
        (looked(NOW, OTHER), NOW + SECOND, ()),
        (looked(NOW, OTHER), NOW + RETRY, ("shop",)),
    ],
    ids=["never", "just now", "lately", "long ago", "clock set back", "renewed", "wrong just now", "wrong"],
)
def test_what_is_asked_for(probes: Any, now: dt.datetime, expected: tuple[str, ...]) -> None:
    """What is new or renewed at once, what was wrong soon again, the others now and then."""
    assert due({"shop": PAIR}, probes, now) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a.test", "b.test"), "a.test"),
        (("*.a.test", "a.test"), "a.test"),
        (("*.a.test",), "cloudlunacy-probe.a.test"),
    ],
)
def test_the_name_that_is_asked_for(names: tuple[str, ...], expected: str) -> None:
    """An exact one, which comes before every wildcard; else one that only the wildcard covers."""
    assert probe_name(names) == expected
