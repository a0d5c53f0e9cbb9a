"""``cloudlunacy`` and ``python -m reconciler``: the commands of the control plane and those of the agent.

The only module that knows both sides; neither imports the other.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import agent.cli

from reconciler import cli
from reconciler.commands import demo_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser, subparsers = cli.make_parser()
    agent.cli.add_parser(subparsers)
    demo_command.add_parser(subparsers)
    return cli.run(parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
