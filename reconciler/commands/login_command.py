"""``cloudlunacy login``: a link that lets somebody in by the browser, once."""

from __future__ import annotations

import argparse
import os
from typing import get_args

from reconciler.commands.client import Client, add_target_options, target_of
from reconciler.commands.output import say, say_json, tell
from schemas.login_api import NewLoginLink, Role


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "login",
        help="print a link that lets somebody in by the browser",
        description="Print a link that is good once, for ten minutes. Whoever opens it in a browser and presses the "
        "button there is logged in. Only who may do everything may make one.",
    )
    parser.add_argument("--name", default="admin", metavar="NAME", help="as whom (default: %(default)s)")
    parser.add_argument("--role", choices=get_args(Role), help="what for (default: administrator)")
    parser.add_argument("--team", action="append", default=[], metavar="TEAM",
                        help="instead, or besides: as a member of this team; may be given more than once")  # fmt: skip
    parser.add_argument("--format", choices=("text", "json"), default="text")
    add_target_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the link and nothing else on stdout."""
    role = options.role or (None if options.team else "administrator")
    body = {"name": options.name, "teams": options.team} | ({"role": role} if role else {})
    with Client(target_of(options, os.environ)) as client:
        answer = client.post("/login-links", body)
    if options.format == "json":
        say_json(answer)
        return 0
    new = NewLoginLink.model_validate(answer)
    say(new.url.get_secret_value())
    tell(f"It lets {new.name} in ({', '.join(new.roles)}), once, until {new.expires_at:%H:%M} UTC.")
    return 0
