"""The command line. Each command is a module with ``add_parser``; only the one that is asked for is imported.

Exit codes: 0 success, 1 failure or problems found, 2 usage. ``plan`` has its own: 0 no change, 2 change, 1 error.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from reconciler.commands.output import tell
from reconciler.errors import CloudLunacyError, Misused, Rejected


class Entry(NamedTuple):
    """A command: its name, the module that has its ``add_parser``, and what it does in a few words."""

    name: str
    module: str
    help: str
    more: str = ""
    """Module whose ``add_actions`` adds actions to those that ``add_parser`` returns."""


COMMANDS: Final = (
    Entry("serve", "reconciler.commands.serve_command", "run the control plane"),
    Entry("validate", "reconciler.commands.validate_command", "check a state repo"),
    Entry("plan", "reconciler.commands.plan_command", "show what a change would do"),
    Entry("review", "reconciler.commands.review_command", "check and plan a pull request in CI"),
    Entry("render", "reconciler.commands.render_command", "write Traefik's configuration"),
    Entry("status", "reconciler.commands.status_command", "show where a revision stands"),
    Entry("conditions", "reconciler.commands.conditions_command", "show what is not as it should be"),
    Entry("channel", "reconciler.commands.channel_command", "try a channel for notifications"),
    Entry("explain", "reconciler.commands.explain_command", "say who answers a URL, and why"),
    Entry("approve", "reconciler.commands.approve_command", "approve a held revision"),
    Entry("object", "reconciler.commands.object_command", "read and change objects by commits"),
    Entry("route", "reconciler.commands.route_command", "move traffic between backends"),
    Entry("rollback", "reconciler.commands.rollback_command", "take a revision back by a commit"),
    Entry("deploy", "reconciler.commands.deploy_command", "look at deployments, and act on them"),
    Entry("login", "reconciler.commands.login_command", "print a link that lets somebody in by the browser"),
    Entry("token", "reconciler.commands.token_command", "make tokens for agents, people and CI"),
    Entry("secret", "reconciler.commands.secret_command", "seal and open secrets"),
    Entry("mongodb", "reconciler.commands.mongodb_command", "print and check connection strings"),
    Entry("pki", "reconciler.commands.pki_command", "make and look at the authority"),
    Entry("certificate", "reconciler.commands.certificate_command", "show certificates and what holds them up"),
    Entry("init", "reconciler.commands.init_command", "make a new state repo"),
    Entry("schemas", "reconciler.commands.schemas_command", "write the JSON Schemas"),
    Entry("doctor", "reconciler.commands.doctor_command", "check this installation"),
)
Command = Callable[[argparse.Namespace], int]


def make_parser(entries: Sequence[Entry], chosen: str | None) -> argparse.ArgumentParser:
    """Return the parser. Only the command ``chosen`` has its arguments; of the others it knows that they are there."""
    parser = argparse.ArgumentParser(
        prog="cloudlunacy", description="GitOps control plane for fleets of small servers behind Traefik."
    )
    parser.add_argument("--version", action="version", version=importlib.metadata.version("cloudlunacy"))
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for entry in entries:
        if entry.name == chosen:
            actions = importlib.import_module(entry.module).add_parser(subparsers)
            if entry.more:
                importlib.import_module(entry.more).add_actions(actions)
        else:
            subparsers.add_parser(entry.name, help=entry.help)
    return parser


def run(entries: Sequence[Entry], arguments: Sequence[str] | None = None) -> int:
    """Run one command; every expected failure becomes a sentence on stderr."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    _accept_any_text()
    parser = make_parser(entries, next((one for one in given if not one.startswith("-")), None))
    options, strange = parser.parse_known_args(given)
    if strange:
        parser.error(_unrecognized(strange))
    command: Command = options.run
    try:
        return command(options)
    except Rejected as error:
        for problem in error.problems:
            tell(str(problem))
        tell(f"cloudlunacy: {error}")
    except Misused as error:
        tell(f"cloudlunacy: {error}")
        return 2
    except CloudLunacyError as error:
        tell(f"cloudlunacy: {error}")
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        tell(f"cloudlunacy: {error.filename or 'the system'} says: {error.strerror or error}.")
    except KeyboardInterrupt:
        return 130
    return 1


def _unrecognized(words: Sequence[str]) -> str:
    """Name the flags that nobody knows, and count the rest: it may be a secret that was meant for standard input."""
    flags = [word.partition("=")[0] if word.startswith("--") else word[:2] for word in words if word.startswith("-")]
    rest = len(words) - len(flags)
    counted = ["one word too many" if rest == 1 else f"{rest} words too many"] if rest else []
    return f"unrecognized arguments: {', '.join([*flags, *(f'and {one}' if flags else one for one in counted)])}"


def _accept_any_text() -> None:
    """A file name may hold what no encoding knows; it is shown escaped instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Whoever read our output has left; the interpreter must not complain about it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
