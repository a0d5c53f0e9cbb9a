"""``cloudlunacy agent drain`` and ``agent undrain``: keep requests away from an agent, without a commit."""

from __future__ import annotations

import argparse
import os
import re
from urllib.parse import quote

from reconciler.commands.client import Client, add_target_options, target_of
from reconciler.commands.output import say, say_json
from reconciler.errors import Misused
from schemas.health_api import AgentDrain

_LASTING = re.compile(r"[1-9][0-9]{0,5}[smhd]")


def add_actions(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add to the actions of ``agent``."""
    drain = actions.add_parser(
        "drain",
        help="keep requests away from an agent",
        description="Keep requests away from everything on an agent: fronts give it weight 0 and then leave it out. "
        "What runs there runs on, connections that are open stay open, and git is not changed. For new deployments to "
        "stay away as well, say state: cordoned in the agent's file.",
    )
    drain.add_argument("--for", dest="lasting", metavar="TIME", help="end it by itself after so long, such as 1h")
    drain.add_argument("--reason", default="", metavar="TEXT", help="why; goes into the timeline")
    undrain = actions.add_parser(
        "undrain", help="let an agent have requests again", description="Let an agent have requests again."
    )
    for parser, run in ((drain, run_drain), (undrain, run_undrain)):
        parser.add_argument("name", metavar="NAME", help="name of the agent")
        parser.add_argument("--format", choices=("text", "json"), default="text")
        add_target_options(parser)
        parser.set_defaults(run=run)


def run_drain(options: argparse.Namespace) -> int:
    """Drain it and say until when."""
    if options.lasting is not None and not _LASTING.fullmatch(options.lasting):
        raise Misused(f'"{options.lasting}" is no time.', hint="Write a number with s, m, h or d, such as 1h.")
    body = {"reason": options.reason} | ({"lasting": options.lasting} if options.lasting is not None else {})
    return _ask(options, "drain", body)


def run_undrain(options: argparse.Namespace) -> int:
    """Undrain it."""
    return _ask(options, "undrain", {})


def _ask(options: argparse.Namespace, what: str, body: dict[str, str]) -> int:
    with Client(target_of(options, os.environ)) as client:
        answer = client.post(f"/agents/{quote(options.name, safe='')}/{what}", body)
    if options.format == "json":
        say_json(answer)
    else:
        say(sentence(AgentDrain.model_validate(answer)))
    return 0


def sentence(done: AgentDrain) -> str:
    """Return what to tell a person."""
    if done.drain is None:
        return f"{done.name} gets requests again." if done.changed else f"{done.name} was not drained."
    if done.drain.until is not None:
        return f"{done.name} is drained until {done.drain.until:%Y-%m-%d %H:%M} UTC."
    return f"{done.name} is drained until cloudlunacy agent undrain {done.name}."
