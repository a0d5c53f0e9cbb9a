"""What a person reads of a rotation."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconciler.commands import pki_rotate
from reconciler.commands.pki_report import as_text, report
from reconciler.errors import Transient
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import permitted_for
from reconciler.pki.rotation import Stay, begin, enter
from reconciler.pki.rotation_file import Kept, Waiting, load, save
from schemas.rotation_api import RotationView
from tests.support.certificates import NOW

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)


def view(**said: Any) -> RotationView:
    return RotationView(
        **{"subject": "root", "phase": "distribute", "begun": AT, "since": AT, "tainted": False, "actor": ""} | said
    )


def test_a_line_says_the_phase_who_is_waited_for_and_until_when() -> None:
    """All that there is to know, and no more than a few names."""
    line = pki_rotate.described(
        view(waits_for="not everybody knows it", who=("vps-1", "vps-2"), how_many=9, until=AT, tainted=True)
    )

    assert line == (
        "distribute: everybody who verifies gets to know the next key, in a hurry; not everybody knows it "
        "(vps-1, vps-2 and 7 more); goes on at 2026-06-01 12:00:00 UTC at the latest"
    )


def test_following_tells_each_change_once_and_bears_a_restart(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the control plane is away for a moment nothing is told."""
    monkeypatch.setattr(pki_rotate, "LOOK_SECONDS", 0.0)
    seen: list[Any] = [view(), view(), Transient("away"), view(phase="activate"), view(phase="activate"), None]

    def find() -> RotationView | None:
        found = seen.pop(0)
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[no-any-return]

    assert pki_rotate.follow(find, view(), 60)
    assert [line.partition(";")[0] for line in capsys.readouterr().err.splitlines()] == [
        "root: activate: the next key takes over",
        "root: done",
    ]


def test_who_does_not_want_to_follow_any_longer_is_told_that_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code says that it was not over."""
    assert not pki_rotate.follow(view, view(), 0)
    assert "goes on by itself" in capsys.readouterr().err


def test_a_control_plane_that_stays_away_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a minute nobody waits for it."""
    monkeypatch.setattr(pki_rotate, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(pki_rotate, "PATIENCE", 0.0)

    def away() -> None:
        raise Transient("it does not answer")

    with pytest.raises(Transient):
        pki_rotate.follow(away, view(), 60)


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400.0), ("72h", 259_200.0), ("30d", 2_592_000.0)])
def test_times_are_written_as_elsewhere(text: str, seconds: float) -> None:
    """A number and its unit."""
    assert pki_rotate._duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "0s", "31d", "1w", "-5m", "1.5h"])
def test_what_is_no_time_is_a_usage_error(text: str) -> None:
    """With an example in the sentence."""
    with pytest.raises(argparse.ArgumentTypeError, match="write 600s"):
        pki_rotate._duration(text)


def test_status_shows_what_is_under_way_and_when_keys_are_due(tmp_path: Any) -> None:
    """From the disk alone, so that it also answers while the control plane is down."""
    authority = Authority.open_or_found(tmp_path, permitted=permitted_for(domain="fleet.test"), now=NOW)
    rotation = enter(begin({}, "root", NOW, tainted=True), "distribute", NOW)
    stay = Stay("not everybody knows the next key yet", NOW + timedelta(hours=1), tuple(f"vps-{n}" for n in range(30)))
    save(
        tmp_path,
        Kept({"root": rotation}, {"access": NOW, "age": NOW}, {"root": Waiting.of(stay)}, frozenset({"vps-7"})),
    )

    said = report(authority, load(tmp_path), None, NOW)
    text = as_text(said)
    assert said["rotations"][0]["waiting"]["count"] == 30
    assert "rotation of root (since 2026-06-01T12:00:00Z, known to others)" in text
    assert "vps-19 and 10 more" in text
    assert "did not take a next key in time\n  vps-7\n" in text
    assert "at most until 2026-06-01T13:00:00Z" in text
    assert "access        signs since 2026-06-01; rotated by itself on 2026-07-01" in text
    assert "age           signs since 2026-06-01\n" in text
