"""``cloudlunacy agent revoke``, and with it what the control plane's side of ``agent`` can do."""

from __future__ import annotations

import argparse
import os
import sys
from urllib.parse import quote

from reconciler.commands import agent_drain, agent_view, change_command
from reconciler.commands.client import Client, add_target_options, target_of
from reconciler.commands.output import say, say_json, tell
from reconciler.errors import Misused
from schemas.access_api import AgentRevocation


def add_actions(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add to the actions of ``agent``."""
    agent_view.add_actions(actions)
    agent_drain.add_actions(actions)
    change_command.add_actions(actions)
    parser = actions.add_parser(
        "revoke",
        help="lock an agent out",
        description="Lock an agent out at once: its connection is closed, its tokens and certificates count no more. "
        "Then git is told: the agent's file is deleted, or says state: quarantined. Its key stays locked out for good; "
        "the machine may enrol again with a new key.",
    )
    parser.add_argument("name", metavar="NAME", help="name of the agent")
    parser.add_argument(
        "--quarantine",
        action="store_true",
        help="keep the file, with state: quarantined; editing it lets the agent in again",
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="why; goes into the commit and the timeline")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    add_target_options(parser)
    parser.set_defaults(run=run_revoke)


def run_revoke(options: argparse.Namespace) -> int:
    """Lock the agent out and say how far git knows."""
    target = target_of(options, os.environ)
    if not options.yes:
        _ask(options.name)
    with Client(target) as client:
        body = {"quarantine": options.quarantine, "reason": options.reason}
        answer = client.post(f"/agents/{quote(options.name, safe='')}/revocation", body)
    done = AgentRevocation.model_validate(answer)
    if options.format == "json":
        say_json(answer)
    else:
        say("\n".join(lines(done)))
    return 1 if done.state == "conflicted" else 0


def _ask(name: str) -> None:
    """Raises Misused when nobody says yes."""
    if not sys.stdin.isatty():
        raise Misused("nobody is here to be asked.", hint=f"Say --yes to lock {name} out.")
    tell(f"This locks {name} out at once. Type its name to go on:")
    if sys.stdin.readline().strip() != name:
        raise Misused("nothing was done.")


def lines(done: AgentRevocation) -> list[str]:
    """Return what to tell a person."""
    return [f"{done.name} is locked out: {', '.join(_at_once(done))}.", _git(done)]


def _at_once(done: AgentRevocation) -> list[str]:
    certificates = {
        None: "its certificates are revoked as soon as the disk takes it",
        0: "it had no certificate to revoke",
        1: "its certificate is revoked",
    }.get(done.certificates, f"its {done.certificates} certificates are revoked")
    connection = "its connection is closed" if done.disconnected else "it was not connected"
    return [connection, certificates, "its tokens are refused"]


def _git(done: AgentRevocation) -> str:
    what = f"{done.file} says state: quarantined" if done.quarantine else f"{done.file} is deleted"
    match done.state:
        case "committed":
            return f"In git {what}, in {done.revision}."
        case "proposed":
            text = f"The fleet takes changes by pull request: on branch {done.proposal} {what}."
            return f"{text} Merge it; until then {done.name} stays locked out here."
        case "pending":
            return "Git does not know yet: the commit is queued, and goes out as soon as the remote takes it."
        case "conflicted":
            return f"Git was not changed: {done.message} {done.name} stays locked out here; edit {done.file} by hand."
