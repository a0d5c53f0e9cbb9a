"""How values are written on pages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import pytest

from reconciler.web.pages import words
from schemas.certificate_status import CertificateState
from schemas.health_api import Presence
from schemas.status import AgentState, RevisionState, RolloutState

NOW = 1_750_000_000.0


@pytest.mark.parametrize("status", [*get_args(RevisionState), *get_args(RolloutState), *get_args(Presence),
                                    *get_args(AgentState), *get_args(CertificateState)])  # fmt: skip
def test_every_state_has_a_tone(status: str) -> None:
    """And a shape of that tone, for who does not see colours."""
    assert status == "Unknown" or status.lower() in words.TONE_OF
    assert words.shape(status) == words.SHAPE_OF[words.tone(status)]


def test_what_is_not_known_has_no_colour() -> None:
    """A word of a newer version says nothing about good or bad."""
    assert (words.tone("Sideways"), words.tone("Last-Good"), words.tone("True")) == ("idle", "warn", "good")


@pytest.mark.parametrize(("distance", "said"), [
    (0, "0 s ago"), (-59.9, "59 s ago"), (-60, "1 min ago"), (-7200, "2 h ago"), (-86400 * 3, "3 d ago"),
    (30, "in 30 s"), (86400 * 12.5, "in 12 d"), (-86400 * 500, "2024-02-01"),
])  # fmt: skip
def test_a_time_is_told_by_how_long_ago_it_was(distance: float, said: str) -> None:
    """Coarser the further away, at last as a day."""
    assert words.ago(NOW + distance, NOW) == said


@pytest.mark.parametrize(("seconds", "said"), [
    (0.0004, "0 ms"), (0.083, "83 ms"), (3.44, "3.4 s"), (125, "2 min 5 s"), (7260, "2 h 1 min"), (273600, "3 d 4 h"),
])  # fmt: skip
def test_a_span_has_two_figures(seconds: float, said: str) -> None:
    """As fine as it matters."""
    assert words.span(seconds) == said


def test_times_are_utc_for_people_and_for_machines() -> None:
    """Whether they come as seconds or as a time."""
    moment = datetime(2026, 11, 22, 14, 3, 1, 500_000, tzinfo=UTC)
    assert words.stamp(moment.timestamp()) == "2026-11-22 14:03:01 UTC"
    assert words.iso(moment) == "2026-11-22T14:03:01.500Z"


@pytest.mark.parametrize("text", [
    "//evil.test", "https://evil.test", "/\\evil.test", "\\\\evil.test", "javascript:alert(1)", "", "a", "/a\r\nb: c",
    "/a\\b", "/" + "a" * 3000,
])  # fmt: skip
def test_a_form_leads_to_no_other_site(text: str) -> None:
    """Only paths of ours are gone on to."""
    assert words.local_path(text) == "/"
    assert words.local_path("/agents?after=vps-1") == "/agents?after=vps-1"


def test_a_link_leads_to_the_web_alone() -> None:
    """And a segment names no other page, whatever git allowed it to be called."""
    assert words.external("https://forge.test/pr/1") == "https://forge.test/pr/1"
    assert {words.external(one) for one in ("javascript:alert(1)", "data:text/html,x", "//x.test", "")} == {""}
    assert words.segment("../a b/\udcff") == "..%2Fa%20b%2F%FF"
    assert words.within("routes/a b.yaml") == "routes/a%20b.yaml"


def test_ids_are_shortened_where_they_stand() -> None:
    """The rest of a subject stays."""
    assert words.shortened(f"revision/{'ab' * 20}") == "revision/ababababab…"
    assert words.shortened("agent/vps-1") == "agent/vps-1"
    assert (words.number(12345.0), words.number(0.5), words.octets(3 * 1024**2)) == ("12\u202f345", "0.5", "3.0 MiB")
