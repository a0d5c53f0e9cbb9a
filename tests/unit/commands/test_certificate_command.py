from __future__ import annotations

import datetime as dt

from reconciler.commands.certificate_command import as_table, as_text
from schemas.certificate_status import CertificateStatus, ServedLeaf

NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
GOOD = CertificateStatus(
    name="apps",
    issuer="internal",
    dns_names=("*.app.example.com",),
    not_before=NOW - DAY,
    not_after=NOW + 89 * DAY,
    fingerprint="ab" * 32,
    state="Good",
    next_look=NOW + 60 * DAY,
    probe=(ServedLeaf(front="front-1", name="x.app.example.com", checked_at=NOW, fingerprint="ab" * 32, matches=True),),
)
PENDING = CertificateStatus(
    name="shop",
    issuer="acme",
    directory="https://acme.test/dir",
    dns_names=("a.test", "b.test", "c.test", "d.test", "e.test"),
    state="Pending",
    reason="AcmeChallengeFailed",
    message="acme.test found no answer at a.test.",
    next_look=NOW + dt.timedelta(seconds=65),
)
WRONG = GOOD.model_copy(
    update={
        "name": "old",
        "not_after": NOW - dt.timedelta(hours=3),
        "state": "Expired",
        "probe": (
            ServedLeaf(
                front="front-1",
                name="x.app.example.com",
                checked_at=NOW,
                fingerprint="00" * 32,
                message="The front shows another certificate than the one that is published.",
            ),
        ),
    }
)


def test_a_table_says_what_is_not_good_below_it() -> None:
    """One line for each, and a sentence for each that waits, or that a front does not show."""
    assert as_table([GOOD, PENDING, WRONG], NOW).splitlines() == [
        "NAME  ISSUER    STATE    ENDS     NEXT LOOK  NAMES",
        "apps  internal  Good     in 89 d  in 60 d    *.app.example.com",
        "shop  acme      Pending  –        in 65 s    a.test, b.test, c.test and 2 more",
        "old   internal  Expired  3 h ago  in 60 d    *.app.example.com",
        "",
        "shop: acme.test found no answer at a.test.",
        "old: front-1: The front shows another certificate than the one that is published.",
    ]


def test_a_fleet_of_good_certificates_needs_no_sentence() -> None:
    """The table is all there is."""
    assert len(as_table([GOOD], NOW).splitlines()) == 2


def test_one_certificate_is_told_whole() -> None:
    """With its fingerprint, times, and what each front showed."""
    assert as_text(GOOD, NOW).splitlines() == [
        "apps  Good",
        "  issuer       internal",
        "  names        *.app.example.com",
        "  valid        2026-05-31T12:00:00Z to 2026-08-29T12:00:00Z (in 89 d)",
        f"  SHA-256      {'ab' * 32}",
        "  next look    2026-07-31T12:00:00Z (in 60 d)",
        "  front-1      shows it (asked for x.app.example.com, 2026-06-01T12:00:00Z)",
    ]
    assert as_text(PENDING, NOW).splitlines()[:3] == [
        "shop  Pending  (AcmeChallengeFailed)",
        "  acme.test found no answer at a.test.",
        "  issuer       acme, https://acme.test/dir",
    ]
    assert "SHA-256 " + "00" * 32 in as_text(WRONG, NOW)
