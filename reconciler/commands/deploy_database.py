"""``cloudlunacy deploy backup|backups|restore``: what people do with databases that agents run."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from reconciler.commands.client import add_target_options
from reconciler.commands.deploy_acting import Actions, add_deployment, path_of, say_lines
from reconciler.commands.output import tell
from reconciler.errors import Misused


def add_actions(actions: Actions[argparse.ArgumentParser]) -> None:
    """Add to the actions of ``deploy``."""
    backup = _add(actions, "backup", "back a database up", "Make a backup now; it is kept on the agent.")
    backup.set_defaults(run=run_backup)
    backups = _add(actions, "backups", "show backups of a database", "Show the backups on the agent, oldest first.")
    backups.set_defaults(run=run_backups)
    restore = _add(
        actions, "restore", "write a backup back", "Write a backup back into the database that it was made of."
    )
    restore.add_argument("--archive", required=True, metavar="ID", help="as deploy backups shows it")
    restore.add_argument("--replace", action="store_true", help="data that is there may go")
    restore.add_argument("--yes", action="store_true", help="do not ask")
    restore.set_defaults(run=run_restore)


def _add(actions: Actions[argparse.ArgumentParser], name: str, about: str, description: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=about, description=description)
    add_deployment(parser)
    parser.add_argument("--agent", metavar="NAME", help="where; needed when it runs on several")
    add_target_options(parser)
    return parser


def run_backup(options: argparse.Namespace) -> int:
    """Make one and print its id."""
    return say_lines(options, "POST", f"{path_of(options)}/backup", _agent(options))


def run_backups(options: argparse.Namespace) -> int:
    """Print them."""
    return say_lines(options, "GET", f"{path_of(options)}/backups", query={"agent": options.agent})


def run_restore(options: argparse.Namespace) -> int:
    """Ask, unless ``--yes`` was given, and write it back."""
    name = "/".join(options.deployment)
    if not options.yes:
        _ask(name)
    body = {"archive": options.archive, "confirm": name, "replace": options.replace, **_agent(options)}
    return say_lines(options, "POST", f"{path_of(options)}/restore", body)


def _agent(options: argparse.Namespace) -> dict[str, Any]:
    return {"agent": options.agent} if options.agent else {}


def _ask(name: str) -> None:
    """Raises Misused when nobody says yes."""
    if not sys.stdin.isatty():
        raise Misused("nobody is here to be asked.", hint=f"Say --yes to write into {name}.")
    tell(f"This writes into the database {name}. Type its name to go on:")
    if sys.stdin.readline().strip() != name:
        raise Misused("nothing was done.")
