"""``cloudlunacy plan``: what publishing a state repo would change."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pydantic import ValidationError

from reconciler.commands.client import Client, add_trust_options, target_of
from reconciler.commands.evaluate import judge, plan_between
from reconciler.commands.output import say, tell, wants_colour
from reconciler.commands.plan_formats import format_plan
from reconciler.commands.problem_formats import format_problems
from reconciler.commands.revisions import tree_of_revision
from reconciler.commands.tree import read_directory
from reconciler.desired.parse import Parsed
from reconciler.desired.restore import restore
from reconciler.desired.state import State
from reconciler.errors import Broken, CloudLunacyError, Rejected
from schemas.api import PublishedState
from schemas.objects import ADAPTERS, key_of_path

NO_CHANGE, ERROR, CHANGE = 0, 1, 2


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "plan",
        help="show what a change would do",
        description="Compare a state repo with a revision, or with what a control plane has published: objects, "
        "traffic, agents. Exit code 0: no change, 2: change, 1: error.",
    )
    parser.add_argument(
        "directory", nargs="?", type=Path, default=Path(), metavar="DIR", help="state repo (default: .)"
    )
    base = parser.add_mutually_exclusive_group(required=True)
    base.add_argument("--base", metavar="REV", help="compare with this revision, such as origin/main")
    base.add_argument("--server", metavar="URL", help="compare with what this control plane has published")
    base.add_argument("--data", type=Path, metavar="DIR", help="the same, on its machine")
    add_trust_options(parser)
    parser.add_argument("--format", choices=("text", "markdown", "json"), default="text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the plan; problems that stand in its way go to stderr."""
    try:
        base = _base(options)
        plan, verdict = plan_between(base, read_directory(options.directory))
    except Rejected:
        raise
    except CloudLunacyError as error:
        tell(f"cloudlunacy: {error}")
        return ERROR
    if verdict.errors and options.format != "markdown":
        tell(format_problems(verdict.problems, verdict.objects, "text").rstrip())
    say(format_plan(plan, options.format, colour=wants_colour(sys.stdout)))
    if verdict.settled.state.fleet is None:
        return ERROR
    return NO_CHANGE if plan.empty else CHANGE


def _base(options: argparse.Namespace) -> State:
    if options.base is not None:
        revision, tree = tree_of_revision(options.base, options.directory)
        return judge(tree, revision=revision).settled.state
    with Client(target_of(options, os.environ)) as client:
        return state_from(client.read(PublishedState, "/state"))


def state_from(published: PublishedState) -> State:
    """Make the published state of what the API says of it.

    Raises:
        Broken: when the control plane serves objects that this version does not know.
    """
    parsed = []
    for one in published.objects:
        key = key_of_path(one.path)
        if key is None:
            continue
        try:
            found = ADAPTERS[key.kind].validate_python(one.document)
        except ValidationError:
            hint = "Use the version of the control plane."
            raise Broken(f"{one.path}, as it is in service, is not valid for this version.", hint=hint) from None
        parsed.append(Parsed(one.path, one.blob, key, found, b""))
    return restore(published.revision, parsed, ())
