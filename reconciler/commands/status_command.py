"""``cloudlunacy status``: where a revision stands, or the wait until it is live."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from urllib.parse import quote

from reconciler.commands.client import Client, add_target_options, target_of, target_words
from reconciler.commands.output import say, say_json, tell, wants_colour
from reconciler.commands.status_formats import format_status
from reconciler.commands.trust import LEAST_DAYS
from reconciler.errors import Broken, Refused, Transient
from schemas.status import FINAL_STATES, STAGES, RevisionStatus

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
NOT_FOUND = 404


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "status",
        help="show where a revision stands",
        description="Show the convergence record of a revision, by default of the newest one. With --wait: exit "
        "code 0 once it is Converged, 1 when it is Held, Failed or not there in time.",
    )
    parser.add_argument("revision", nargs="?", metavar="REV", help="full or abbreviated to 7 digits (default: newest)")
    add_target_options(parser)
    parser.add_argument("--wait", action="store_true", help="wait until it is decided")
    parser.add_argument("--timeout", type=seconds, default=300.0, metavar="S", help="seconds to wait (default: 300)")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.set_defaults(run=run)


def seconds(text: str) -> float:
    """Read a time in seconds for argparse."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f'"{text}" is no time in seconds')
    return value


def run(options: argparse.Namespace) -> int:
    """Print the record."""
    with Client(target_of(options, os.environ)) as client:
        if options.wait:
            status = wait(lambda: look(client, options.revision), options.timeout, show_progress=sys.stderr.isatty())
        else:
            status = look(client, options.revision)
        _tell_of_its_end(client.days_left)
    if status is None:
        what = f"revision {options.revision}" if options.revision else "any revision"
        raise Broken(f"the control plane does not know {what}.", hint="Was it pushed to the branch that it follows?")
    if options.format == "json":
        say_json(status.model_dump(mode="json", by_alias=True))
    else:
        say(format_status(status, target_words(options), colour=wants_colour(sys.stdout)))
    return 0 if status.state == "Converged" or not options.wait else 1


def _tell_of_its_end(days: float | None) -> None:
    if days is not None and days < LEAST_DAYS:
        tell(f"The certificate of the control plane ends in {days:.1f} days and should be renewed by now: see doctor.")


def look(client: Client, revision: str | None) -> RevisionStatus | None:
    """Ask once; None where the revision is not known (yet). A revision that was overtaken leads to the one after it."""
    try:
        status = client.read(RevisionStatus, f"/revisions/{quote(revision or 'newest', safe='')}")
    except Refused as refused:
        if refused.status == NOT_FOUND:
            return None
        raise
    newer = look(client, status.superseded_by) if status.state == "Superseded" and status.superseded_by else None
    if newer is None or newer.state not in FINAL_STATES:
        return status
    text = f"as part of {newer.revision[:12]}" + (f": {newer.message}" if newer.message else "")
    decided = {"state": newer.state, "reason": newer.reason, "message": text, "approve": newer.approve}
    return status.model_copy(update=decided)


def wait(ask: Callable[[], RevisionStatus | None], timeout: float, *, show_progress: bool) -> RevisionStatus | None:
    """Ask until the revision is decided or the time is over; returns the last answer."""
    end, pause, shown = time.monotonic() + timeout, FIRST_PAUSE, ""
    while True:
        try:
            status = ask()
        except Transient:
            if time.monotonic() >= end:
                raise
            status = None
        if status is not None and is_decided(status):
            return status
        if show_progress and (line := _progress(status)) != shown:
            shown = line
            tell(line)
        if time.monotonic() >= end:
            return status
        time.sleep(min(pause, max(0.0, end - time.monotonic())))
        pause = min(LONGEST_PAUSE, pause * 1.3)


def is_decided(status: RevisionStatus) -> bool:
    """Say whether waiting longer is of no use: a revision that left the branch will never be live."""
    return status.state in FINAL_STATES or (status.state == "Superseded" and not status.superseded_by)


def _progress(status: RevisionStatus | None) -> str:
    if status is None:
        return "waiting: not fetched yet"
    reached = [stage for stage in STAGES if status.stages.get(stage)]
    return f"{status.state}: {reached[-1] if reached else 'known'}; {status.message}"
