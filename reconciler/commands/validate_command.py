"""``cloudlunacy validate``: every problem of a state repo at once."""

from __future__ import annotations

import argparse
import sys

from reconciler.commands.evaluate import judge
from reconciler.commands.output import say, tell, wants_colour
from reconciler.commands.problem_formats import format_problems, summarise
from reconciler.commands.revisions import tree_of

FORMATS = ("text", "json", "github", "sarif", "junit")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "validate",
        help="check a state repo",
        description="Check every object of a state repo and report every problem at once. Exit code 1 where an "
        "error was found; warnings alone are no failure.",
    )
    parser.add_argument("where", nargs="?", default=".", metavar="DIR|REV", help="directory, or revision of the "
                        "repository that the current directory is in (default: .)")  # fmt: skip
    parser.add_argument("--format", choices=FORMATS, default="text", help="how to print problems (default: text)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the problems; 1 where there is an error."""
    verdict = judge(tree_of(options.where))
    text = format_problems(
        verdict.problems, verdict.objects, options.format, colour=options.format == "text" and wants_colour(sys.stdout)
    )
    if text:
        say(text)
    if options.format in ("text", "github"):
        tell(summarise(verdict.problems, verdict.objects).rstrip())
    return 1 if verdict.errors else 0
