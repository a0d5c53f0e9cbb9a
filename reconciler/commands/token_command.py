"""``cloudlunacy token create``: a one-time token with which one agent may enrol."""

from __future__ import annotations

import argparse
import os
import re
import shlex

from reconciler.commands.client import Client, Target, add_target_options, target_of
from reconciler.commands.output import say, say_json, tell

DURATION = re.compile(r"^[1-9][0-9]{0,5}(s|m)$")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("token", help="make enrolment tokens", description="Tokens for agents.")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    create = actions.add_parser(
        "create",
        help="make a one-time token",
        description="Print a token with which the agent of this name may enrol once.",
    )
    create.add_argument("--agent", required=True, metavar="NAME", help="name of the agent")
    create.add_argument("--ttl", default="15m", metavar="TIME", type=_ttl, help="how long it is good; 15m at most")
    create.add_argument("--format", choices=("text", "json"), default="text")
    add_target_options(create)
    create.set_defaults(run=run)


def _ttl(text: str) -> str:
    if not DURATION.match(text):
        raise argparse.ArgumentTypeError(f'"{text}" is no time; write 900s or 15m')
    return text


def run(options: argparse.Namespace) -> int:
    """Print the token and nothing else on stdout."""
    target = target_of(options, os.environ)
    with Client(target) as client:
        answer = client.post("/enrolment-tokens", {"agent": options.agent, "ttl": options.ttl})
    if options.format == "json":
        say_json(answer)
        return 0
    say(str(answer["token"]))
    tell(f"On the agent, which reads the token from its standard input: {enrol_command(target, options.agent)}")
    return 0


def enrol_command(target: Target, name: str) -> str:
    """Return what to run on the agent, with the address for it and the authority to pin."""
    server = target.server if target.credential is None else target.credential.issuer
    words = ["cloudlunacy", "agent", "enrol", "--server", server]
    if target.trust.fingerprint and server.startswith("https:"):
        words += ["--ca-sha256", target.trust.fingerprint]
    return shlex.join([*words, "--token-file", "-", "--name", name, "--data", "DIR"])
