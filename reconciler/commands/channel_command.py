"""``cloudlunacy channel test``: find out whether a channel works before it is needed."""

from __future__ import annotations

import argparse
import os
from urllib.parse import quote

from reconciler.commands.client import Client, add_target_options, target_of
from reconciler.commands.output import say


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("channel", help="try a channel for notifications")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    test = actions.add_parser(
        "test",
        help="tell a channel that it works",
        description="Send a message to a channel of spec.notifications. What becomes of it is in the timeline: "
        "ChannelFailed where nobody took it.",
    )
    test.add_argument("name", help="of the channel, as the fleet file has it")
    add_target_options(test)
    test.set_defaults(run=run_test)


def run_test(options: argparse.Namespace) -> int:
    """Ask for the message."""
    with Client(target_of(options, os.environ)) as client:
        answer = client.post(f"/channels/{quote(options.name, safe='')}/test", {})
    say(answer["message"])
    return 0
