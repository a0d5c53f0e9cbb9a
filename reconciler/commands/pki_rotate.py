"""``cloudlunacy pki rotate``: let a key give way to another, while ``serve`` runs, and follow how far that has come."""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Callable
from typing import Final

from reconciler.commands.client import Client, add_target_options, target_of, target_words
from reconciler.commands.output import say, say_json, tell
from reconciler.errors import Refused, Transient
from schemas.rotation_api import LONGEST_SECONDS, RotationList, RotationRequest, RotationView

LOOK_SECONDS: Final = 1.0
PATIENCE: Final = 60.0
"""Seconds for which a control plane may be away while it is being followed."""
SUBJECTS: Final = ("root", "intermediate", "access", "desired", "operator", "age")
PHASES: Final = {
    "prepare": "the next key is made",
    "distribute": "everybody who verifies gets to know the next key",
    "activate": "the next key takes over",
    "wait": "the former key is still believed",
    "remove": "the former key is forgotten",
}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``rotate`` to the actions of ``pki``."""
    parser = actions.add_parser(
        "rotate",
        help="let a key give way to another",
        description="Rotate a key of the running control plane: prepare the next, let everybody know it, activate it, "
        "wait until the former is needed no more, remove it. It goes on by itself, restarts included.",
        epilog="root: what everybody trusts, and the intermediate with it; intermediate: what signs certificates; "
        "access: signs the agents' access tokens; desired: signs the agents' documents; operator: the credential of "
        "this machine; age: opens sealed secrets.",
    )
    parser.add_argument("subject", choices=SUBJECTS, metavar="KEY", help=", ".join(SUBJECTS))
    parser.add_argument("--taint", "--compromised", action="store_true", dest="taint",
                        help="others may know the key: replace at once what it signed, refuse its tokens, and wait for "
                        "no agent that is away")  # fmt: skip
    parser.add_argument("--cancel", action="store_true",
                        help="give up a rotation whose next key has not taken over yet")  # fmt: skip
    parser.add_argument("--deadline", type=_duration, metavar="TIME",
                        help="how long agents that do not acknowledge are waited for "
                        "(default: 72h; with --taint 10m)")  # fmt: skip
    parser.add_argument("--wait", action="store_true", help="follow it to its end, and say what it waits for")
    parser.add_argument("--timeout", type=float, default=float("inf"), metavar="S",
                        help="with --wait: seconds after which to stop following; the rotation goes on")  # fmt: skip
    parser.add_argument("--format", choices=("text", "json"), default="text")
    add_target_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Begin, and follow it where that is asked for. 1: it was not over in time."""
    if options.cancel:
        with Client(target_of(options, os.environ)) as client:
            client.post(f"/pki/rotations/{options.subject}/cancellation", {})
        say(f"{options.subject}: given up; the former key stays.")
        return 0
    begun = _begun(options)
    if options.format == "json":
        say_json(begun.model_dump(mode="json", by_alias=True))
    else:
        say(f"{begun.subject}: {described(begun)}")
    if not options.wait:
        if options.format == "text":
            again = f"cloudlunacy pki rotate {begun.subject} --wait {target_words(options)}"
            tell(f"It goes on by itself. To follow it: {again}")
        return 0
    return 0 if follow(lambda: _found(options), begun, options.timeout) else 1


def follow(find: Callable[[], RotationView | None], begun: RotationView, timeout: float) -> bool:
    """Tell of each change until the rotation is over; False: it was not in time."""
    end, told, away_since = time.monotonic() + timeout, described(begun), None
    while True:
        try:
            found, away_since = find(), None
        except Transient:
            away_since = away_since or time.monotonic()
            if time.monotonic() > away_since + PATIENCE:
                raise
        else:
            if found is None:
                tell(f"{begun.subject}: done; the former key is forgotten.")
                return True
            if described(found) != told:
                told = described(found)
                tell(f"{begun.subject}: {told}")
        if time.monotonic() >= end:
            tell(f"{begun.subject}: not over yet; it goes on by itself.")
            return False
        time.sleep(LOOK_SECONDS)


def described(one: RotationView) -> str:
    """Say in a line where a rotation stands."""
    text = f"{one.phase}: {PHASES[one.phase]}"
    if one.tainted:
        text = f"{text}, in a hurry"
    if one.waits_for:
        text = f"{text}; {one.waits_for}"
    if one.who:
        more = f" and {one.how_many - len(one.who)} more" if one.how_many > len(one.who) else ""
        text = f"{text} ({', '.join(one.who)}{more})"
    if one.until is not None:
        text = f"{text}; goes on at {one.until:%Y-%m-%d %H:%M:%S} UTC at the latest"
    return text


def _begun(options: argparse.Namespace) -> RotationView:
    """Begin it, or find the one that is under way, which may be followed."""
    wanted = RotationRequest(subject=options.subject, tainted=options.taint, deadline_seconds=options.deadline)
    try:
        with Client(target_of(options, os.environ)) as client:
            return RotationView.model_validate(client.post("/pki/rotations", wanted.model_dump(by_alias=True)))
    except Refused as error:
        known = _found(options) if options.wait and error.code == "rotation-under-way" else None
        if known is None:
            raise
        return known


def _found(options: argparse.Namespace) -> RotationView | None:
    with Client(target_of(options, os.environ)) as client:  # anew each time: roots and key may be others by now
        found = client.read(RotationList, "/pki/rotations")
    return next((one for one in found.rotations if one.subject == options.subject), None)


def _duration(text: str) -> float:
    found = _DURATION.fullmatch(text)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= LONGEST_SECONDS:
        raise argparse.ArgumentTypeError(f'"{text}" is no time; write 600s, 90m, 72h or 3d, at most 30d')
    return seconds
