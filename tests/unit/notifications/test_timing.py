"""When channels are told: digests, quiet hours, and pauses after failures."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from reconciler.notifications.conditions import Condition, Notice
from reconciler.notifications.timing import due, is_quiet, pause
from schemas.notifications import Channel, Quiet


def channel(**said: object) -> Channel:
    target = {"team": "ops", "name": "chat", "key": "url"}
    return Channel.model_validate({"name": "ops", "apprise": target, "digest": "10s", **said})


def notice(at: float, severity: str = "warning", kind: str = "raised") -> Notice:
    condition = Condition("AgentAway", f"agent/{at}", severity, "away")  # type: ignore[arg-type]
    return Notice("ops", kind, condition, at, at)  # type: ignore[arg-type]


def moment(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_what_comes_up_together_is_told_together() -> None:
    """Nothing is told before the oldest has waited for the digest's time; then all of it is."""
    waiting = [notice(100.0), notice(108.0)]
    assert due(channel(), waiting, 109.0) == ()
    assert due(channel(), waiting, 110.0) == tuple(waiting)
    assert due(channel(), [], 110.0) == ()


def test_a_test_is_told_at_once() -> None:
    """Who tries a channel need not wait for its digest, nor for the morning."""
    quiet = {"begin": "00:00", "end": "23:59"}
    assert due(channel(quiet=quiet, digest="1h"), [notice(100.0, kind="test")], 100.0)


@pytest.mark.parametrize(
    ("clock", "quiet"),
    [("21:59", False), ("22:00", True), ("23:30", True), ("00:00", True), ("06:59", True), ("07:00", False)],
)
def test_quiet_hours_may_go_over_midnight(clock: str, quiet: bool) -> None:
    """They begin at their first minute and end before their last."""
    assert is_quiet(Quiet(begin="22:00", end="07:00"), moment(f"2030-01-15T{clock}:00")) is quiet


def test_quiet_hours_follow_the_clocks_of_their_zone() -> None:
    """22:00 in Amsterdam is 21:00 UTC in winter and 20:00 UTC in summer."""
    quiet = Quiet(begin="22:00", end="07:00", time_zone="Europe/Amsterdam")
    assert is_quiet(quiet, moment("2030-01-15T21:00:00"))
    assert not is_quiet(quiet, moment("2030-01-15T20:59:00"))
    assert is_quiet(quiet, moment("2030-07-15T20:00:00"))


def test_in_quiet_hours_errors_are_told_and_the_rest_afterwards() -> None:
    """Unless errors shall wait as well."""
    at = moment("2030-01-15T23:00:00")
    waiting = [notice(at), notice(at + 1, "error"), notice(at + 2, "error", "reminded")]
    hours = {"begin": "22:00", "end": "07:00"}
    assert due(channel(quiet=hours), waiting, at + 60) == (waiting[1],)
    assert due(channel(quiet=hours | {"errors": True}), waiting, at + 60) == ()
    assert due(channel(quiet=hours), waiting, at + 9 * 3600) == tuple(waiting)


def test_pauses_grow_to_ten_minutes() -> None:
    """A channel that does not answer is tried less and less often, and never given up."""
    assert [pause(count) for count in (1, 2, 3, 8, 1000)] == [5.0, 10.0, 20.0, 600.0, 600.0]


@pytest.mark.parametrize(
    "said",
    [
        {"begin": "22:00", "end": "22:00"},
        {"begin": "24:00", "end": "07:00"},
        {"begin": "22:00", "end": "07:00", "timeZone": "Middle/Earth"},
        {"begin": "22:00", "end": "07:00", "timeZone": "../../etc/passwd"},
    ],
)
def test_hours_that_make_no_sense_are_refused(said: dict[str, str]) -> None:
    """CI says so before anybody misses a message."""
    with pytest.raises(ValidationError):
        Quiet.model_validate(said)
