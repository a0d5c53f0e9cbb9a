"""The command line of the control plane. Each command is a module of :mod:`reconciler.commands`.

Exit codes: 0 success, 1 failure or problems found, 2 usage. ``plan`` has its own: 0 no change, 2 change, 1 error.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from typing import Final

from reconciler.commands import (
    approve_command,
    doctor_command,
    init_command,
    plan_command,
    render_command,
    schemas_command,
    serve_command,
    status_command,
    token_command,
    validate_command,
)
from reconciler.commands.output import tell
from reconciler.errors import CloudLunacyError, Rejected

COMMANDS: Final = (
    serve_command,
    validate_command,
    plan_command,
    render_command,
    status_command,
    approve_command,
    token_command,
    init_command,
    schemas_command,
    doctor_command,
)
Command = Callable[[argparse.Namespace], int]


def make_parser() -> tuple[argparse.ArgumentParser, argparse._SubParsersAction[argparse.ArgumentParser]]:
    """Return the parser, and the place where further commands are added."""
    parser = argparse.ArgumentParser(
        prog="cloudlunacy", description="GitOps control plane for fleets of small servers behind Traefik."
    )
    parser.add_argument("--version", action="version", version=importlib.metadata.version("cloudlunacy"))
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser, subparsers


def run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Run one command; every expected failure becomes a sentence on stderr."""
    options = parser.parse_args(arguments)
    command: Command = options.run
    try:
        return command(options)
    except Rejected as error:
        for problem in error.problems:
            tell(str(problem))
        tell(f"cloudlunacy: {error}")
    except CloudLunacyError as error:
        tell(f"cloudlunacy: {error}")
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has left; the interpreter must not complain about it
    except KeyboardInterrupt:
        return 130
    return 1
