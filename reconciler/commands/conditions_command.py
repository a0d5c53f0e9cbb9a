"""``cloudlunacy conditions``: what is not as it should be."""

from __future__ import annotations

import argparse
import os

from reconciler.commands.client import Client, add_target_options, target_of
from reconciler.commands.output import say, say_json
from schemas.notification_api import ConditionList, ConditionView
from schemas.text import visible


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "conditions",
        help="show what is not as it should be",
        description="Show what is not as it should be, the worst first, and which channels were told. "
        "Returns 1 where something is an error.",
    )
    add_target_options(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print them."""
    found: list[ConditionView] = []
    with Client(target_of(options, os.environ)) as client:
        following: str | None = None
        while following != "":
            page = client.read(ConditionList, "/conditions", after=following)
            found += page.conditions
            following = page.next
    if options.format == "json":
        say_json(ConditionList(conditions=tuple(found)).model_dump(mode="json", by_alias=True))
    elif found:
        say("\n".join(as_text(one) for one in found))
    else:
        say("Everything is as it should be.")
    return int(any(one.severity == "error" for one in found))


def as_text(one: ConditionView) -> str:
    """Return a condition as lines."""
    told = f"; told: {', '.join(one.told)}" if one.told else ""
    lines = [
        f"{one.severity:8} {visible(one.title)}",
        f"         {one.type} since {one.since:%Y-%m-%d %H:%M:%S}Z{told}",
    ]
    if one.message:
        lines.insert(1, f"         {visible(one.message)}")
    return "\n".join(lines)
