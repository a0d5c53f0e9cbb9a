"""``cloudlunacy approve``: let exactly one held plan through."""

from __future__ import annotations

import argparse
import os

from reconciler.commands.client import Client, add_target_options, target_of
from reconciler.commands.output import say


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "approve",
        help="approve a held revision",
        description="Approve the plan with this checksum, or the rewrite of history, as cloudlunacy status shows it. "
        "It holds for exactly that; a further commit needs another approval.",
    )
    parser.add_argument("checksum", help="such as sha256:… or rewrite:…")
    add_target_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Send the approval."""
    with Client(target_of(options, os.environ)) as client:
        answer = client.post("/approvals", {"checksum": options.checksum})
    say(f"approved {answer['checksum']} as {answer['approvedBy']}")
    return 0
