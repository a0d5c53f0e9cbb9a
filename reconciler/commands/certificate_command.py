"""``cloudlunacy certificate``: how the certificates of fronts stand, what holds one up, and what fronts really show."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from urllib.parse import quote

from reconciler.commands.client import Client, add_target_options, target_of, target_words
from reconciler.commands.output import say, say_json, tell
from reconciler.errors import Broken
from schemas.certificate_status import CertificateList, CertificateStatus, ServedLeaf

_COLUMNS = ("NAME", "ISSUER", "STATE", "ENDS", "NEXT LOOK", "NAMES")
_MOST_NAMES = 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "certificate",
        help="show certificates and what holds them up",
        description="Show the certificates that fronts present: from whom they are, until when they are good, when "
        "they are renewed, what holds them up, and what each front showed when it was asked last.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="one line for each", description="Show one line for each certificate.")
    _add_options(listing, run_list)
    showing = actions.add_parser("show", help="all about one", description="Show everything about one certificate.")
    showing.add_argument("name", metavar="NAME", help="of the Certificate object, or of an implicit certificate")
    _add_options(showing, run_show)
    again = actions.add_parser(
        "retry",
        help="order one now",
        description="Order a certificate of an ACME server now, because what failed is mended. The number of orders "
        "in a week stays bounded.",
    )
    again.add_argument("name", metavar="NAME", help="of the Certificate object")
    add_target_options(again)
    again.set_defaults(run=run_retry)


def _add_options(parser: argparse.ArgumentParser, run: object) -> None:
    add_target_options(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.set_defaults(run=run)


def run_list(options: argparse.Namespace) -> int:
    """Print a table, and a sentence for each certificate that is not good."""
    found = _read(options)
    if options.format == "json":
        say_json(found.model_dump(mode="json", by_alias=True))
    else:
        say(as_table(found.certificates, datetime.now(UTC)))
    return 0


def run_show(options: argparse.Namespace) -> int:
    """Print one certificate."""
    found = _read(options).certificates
    one = next((one for one in found if one.name == options.name), None)
    if one is None:
        known = ", ".join(one.name for one in found) or "none"
        raise Broken(f'there is no certificate "{options.name}".', hint=f"There are: {known}.")
    if options.format == "json":
        say_json(one.model_dump(mode="json", by_alias=True))
    else:
        say(as_text(one, datetime.now(UTC)))
    return 0


def run_retry(options: argparse.Namespace) -> int:
    """Say that it is on its way."""
    with Client(target_of(options, os.environ)) as client:
        client.post(f"/certificates/{quote(options.name, safe='')}/retry", {})
    tell(f"It is ordered now; how it stands: cloudlunacy certificate show {options.name} {target_words(options)}")
    return 0


def _read(options: argparse.Namespace) -> CertificateList:
    with Client(target_of(options, os.environ)) as client:
        return client.read(CertificateList, "/certificates")


def as_table(found: Sequence[CertificateStatus], now: datetime) -> str:
    """Return one line for each, and what is to be said of those that are not good."""
    rows = [_COLUMNS, *(_row(one, now) for one in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    said = [f"{one.name}: {text}" for one in found for text in _remarks(one)]
    return "\n".join([*lines, *(["", *said] if said else [])])


def as_text(one: CertificateStatus, now: datetime) -> str:
    """Return all about one."""
    return "\n".join(_about(one, now))


def _row(one: CertificateStatus, now: datetime) -> tuple[str, ...]:
    names = ", ".join(one.dns_names[:_MOST_NAMES])
    more = len(one.dns_names) - _MOST_NAMES
    return (
        one.name,
        one.issuer,
        one.state,
        _when(one.not_after, now),
        _when(one.next_look, now),
        f"{names} and {more} more" if more > 0 else names,
    )


def _remarks(one: CertificateStatus) -> Iterator[str]:
    if one.message:
        yield one.message
    for seen in one.probe:
        if not seen.matches:
            yield f"{seen.front}: {seen.message}"


def _about(one: CertificateStatus, now: datetime) -> Iterator[str]:
    yield f"{one.name}  {one.state}{f'  ({one.reason})' if one.reason else ''}"
    if one.message:
        yield f"  {one.message}"
    yield f"  issuer       {one.issuer}{f', {one.directory}' if one.directory else ''}"
    yield f"  names        {', '.join(one.dns_names)}"
    if one.not_before is not None and one.not_after is not None:
        yield f"  valid        {_time(one.not_before)} to {_time(one.not_after)} ({_when(one.not_after, now)})"
        yield f"  SHA-256      {one.fingerprint}"
    if one.next_look is not None:
        yield f"  next look    {_time(one.next_look)} ({_when(one.next_look, now)})"
    for seen in one.probe:
        yield f"  {seen.front:<12} {_shown(seen)} (asked for {seen.name}, {_time(seen.checked_at)})"


def _shown(seen: ServedLeaf) -> str:
    if seen.matches:
        return "shows it"
    return f"{seen.message.rstrip('.')}{f': SHA-256 {seen.fingerprint}' if seen.fingerprint else ''}"


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _when(moment: datetime | None, now: datetime) -> str:
    """Say how far away a moment is."""
    if moment is None:
        return "–"
    seconds = (moment - now).total_seconds()
    ago, seconds = seconds < 0, abs(seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            text = f"{seconds / size:.0f} {unit}"
            break
    else:
        text = f"{seconds:.0f} s"
    return f"{text} ago" if ago else f"in {text}"
