"""``cloudlunacy doctor``: what is wrong with this installation."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from reconciler.commands.doctor import examine, format_checks, healthy
from reconciler.commands.doctor_facts import collect, entry_points_of
from reconciler.commands.evaluate import judge
from reconciler.commands.output import say, wants_colour
from reconciler.commands.revisions import tree_of
from reconciler.git.mirror import Mirror
from reconciler.git.remote import Remote
from reconciler.pki.acme.settings import VARIABLE
from reconciler.settings import GitSettings, git_settings


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="check this installation",
        description="Check programs, limits and directories, and what else is named: the same options as serve has. "
        "Nothing is changed. Exit code 1 where something would keep serve from working.",
    )
    parser.add_argument("--repo", metavar="URL", help="remote of the state repo")
    parser.add_argument("--branch", default="main")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data directory of serve")
    parser.add_argument("--traefik-file", type=Path, metavar="PATH", help="file that serve publishes to")
    parser.add_argument("--traefik-api", default="", metavar="URL", help="Traefik's API")
    parser.add_argument("--state-repo", metavar="DIR|REV", help="compare its entry points with Traefik's")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the checks; 1 where one failed."""
    fleet = judge(tree_of(options.state_repo)).settled.state.fleet if options.state_repo else None
    acme_file = os.environ.get(VARIABLE)
    settings = git_settings(options.repo, options.branch, os.environ) if options.repo else None
    checks = examine(
        collect(
            data=options.data,
            acme_file=Path(acme_file) if acme_file else None,
            traefik_binary=os.environ.get("TRAEFIK_BIN", ""),
            traefik_file=options.traefik_file,
            traefik_api=options.traefik_api,
            entry_points=entry_points_of(fleet) if fleet is not None else (),
            remote_head=None if settings is None else lambda: asyncio.run(_head(settings)),
        )
    )
    say(format_checks(checks, options.format, colour=options.format == "text" and wants_colour(sys.stdout)))
    return 0 if healthy(checks) else 1


async def _head(settings: GitSettings) -> str:
    with tempfile.TemporaryDirectory(prefix="cloudlunacy-doctor-") as directory:
        remote = remote_of(settings)
        mirror = Mirror(Path(directory), remote, settings.branch)
        try:
            return await mirror.head()
        finally:
            await mirror.close()


def remote_of(settings: GitSettings) -> Remote:
    """Accept the remote of the settings, with its credentials."""
    return Remote.parse(
        settings.repo,
        username=settings.username,
        password_file=settings.token_file,
        ssh_key=settings.ssh_key,
        known_hosts=settings.known_hosts,
    )
