"""``cloudlunacy`` and ``python -m reconciler``: the commands of the control plane and those of the agent.

The only module that knows both sides; neither imports the other.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from reconciler import cli

COMMANDS: Final = (
    *cli.COMMANDS,
    cli.Entry("agent", "agent.cli", "be a server of the fleet, or lock one out", "reconciler.commands.agent_command"),
    cli.Entry("demo", "reconciler.commands.demo_command", "run a whole fleet on this machine"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    return cli.run(COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
