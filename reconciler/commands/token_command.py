"""``cloudlunacy token``: one-time tokens with which agents enrol, and tokens of people and CI."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Final, get_args
from urllib.parse import quote

from reconciler.agents.joining import Doorway, enrol_command, install_line
from reconciler.commands import trust
from reconciler.commands.client import Client, Target, add_target_options, target_of
from reconciler.commands.output import say, say_json, tell
from reconciler.errors import Misused
from schemas.access_api import ApiTokenList, ApiTokenView, Grantable, Kind, NewApiToken, without_secret

DURATION: Final = re.compile(r"^[1-9][0-9]{0,5}(s|m)$")
LIFETIME: Final = re.compile(r"^[1-9][0-9]{0,5}[smhd]$")
SCOPES: Final[Sequence[str]] = get_args(Grantable)
_COLUMNS: Final = ("NAME", "ID", "FOR", "SCOPES", "STATE", "EXPIRES", "LAST USED")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "token", help="make tokens for agents, people and CI", description="Tokens for agents, people and CI."
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_create(actions)
    shown = actions.add_parser(
        "list", help="show the tokens of people and CI", description="Show the tokens of people and CI, oldest first."
    )
    shown.add_argument("--format", choices=("text", "json"), default="text")
    add_target_options(shown)
    shown.set_defaults(run=run_list)
    ended = actions.add_parser(
        "revoke", help="end a token of people or CI", description="End a token of a person or of CI, at once."
    )
    ended.add_argument("name", metavar="NAME", help="its name or id, as token list shows it")
    add_target_options(ended)
    ended.set_defaults(run=run_revoke)


def _add_create(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    create = actions.add_parser(
        "create",
        help="make a token",
        description="Print a token, which is shown this once. With --agent the agent of this name may enrol with it, "
        "once; with --for it is for a person or for CI, and good for what --scope says until it expires.",
    )
    whose = create.add_mutually_exclusive_group(required=True)
    whose.add_argument("--agent", metavar="NAME", help="name of the agent that may enrol")
    whose.add_argument("--for", dest="kind", choices=get_args(Kind), help="for whom it is")
    create.add_argument("--ttl", metavar="TIME", type=_ttl, help="with --agent: how long it is good; 15m at most")
    create.add_argument(
        "--scope", action="append", default=[], type=_scopes, metavar="SCOPE",
        help=f"with --for: what it is good for, of {', '.join(SCOPES)}; may be given more than once",
    )  # fmt: skip
    create.add_argument("--expires", metavar="TIME", type=_lifetime, help="with --for: 30d unless said; 366d at most")
    create.add_argument("--name", metavar="NAME", help="with --for: what to call it")
    create.add_argument("--team", metavar="TEAM", help="with --for: good for the deployments of this team alone")
    create.add_argument("--format", choices=("text", "json"), default="text")
    add_target_options(create)
    create.set_defaults(run=run)


def _ttl(text: str) -> str:
    if not DURATION.match(text):
        raise argparse.ArgumentTypeError(f'"{text}" is no time; write 900s or 15m')
    return text


def _lifetime(text: str) -> str:
    if not LIFETIME.match(text):
        raise argparse.ArgumentTypeError(f'"{text}" is no time; write 30d or 12h')
    return text


def _scopes(text: str) -> list[str]:
    scopes = text.split(",")
    for scope in scopes:
        if scope == "validate":
            raise argparse.ArgumentTypeError("validate needs no token: it asks no control plane")
        if scope not in SCOPES:
            raise argparse.ArgumentTypeError(f'"{scope}" is no scope; there are {", ".join(SCOPES)}')
    return scopes


def run(options: argparse.Namespace) -> int:
    """Print the token and nothing else on stdout."""
    if options.agent is not None:
        _require_absent("--agent", options, scope="--scope", expires="--expires", name="--name", team="--team")
        return _create_for_agent(options)
    _require_absent("--for", options, ttl="--ttl")
    if not options.scope:
        raise Misused("a token has to be good for something.", hint=f"Give --scope, of {', '.join(SCOPES)}.")
    return _create(options)


def _require_absent(way: str, options: argparse.Namespace, **flags: str) -> None:
    for name, flag in flags.items():
        if getattr(options, name):
            raise Misused(f"{flag} does not go with {way}.")


def _create_for_agent(options: argparse.Namespace) -> int:
    target = target_of(options, os.environ)
    with Client(target) as client:
        answer = client.post("/enrolment-tokens", {"agent": options.agent, "ttl": options.ttl or "15m"})
        pin = trust.pin(client.presented) if client.presented else ""
    token = str(answer["token"])
    doorway = _doorway(target, pin)
    if options.format == "json":
        say_json({**answer, "install": install_line(doorway, options.agent, token)})
        return 0
    say(token)
    # what is no terminal may be a log, where no token belongs
    shown = install_line(doorway, options.agent, token if sys.stderr.isatty() else "$TOKEN")
    tell(f"A new server becomes {options.agent} by this line on it (docs/installing.md):\n\n  {shown}\n")
    tell(f"By hand, with the token on its standard input: {enrol_command(doorway, options.agent)}")
    return 0


def _create(options: argparse.Namespace) -> int:
    body = {"kind": options.kind, "scopes": sorted({one for some in options.scope for one in some})}
    body |= {name: getattr(options, name) for name in ("expires", "name", "team") if getattr(options, name)}
    with Client(target_of(options, os.environ)) as client:
        answer = client.post("/tokens", body)
    if options.format == "json":
        say_json(answer)
        return 0
    new = NewApiToken.model_validate(answer)
    say(new.token.get_secret_value())
    tell(
        f"{new.name} is good for {', '.join(new.scopes)} until {new.expires_at:%Y-%m-%d %H:%M} UTC. It is not shown "
        "again: put it into a file that only its owner may read, and name the file in CLOUDLUNACY_TOKEN_FILE."
    )
    return 0


def run_list(options: argparse.Namespace) -> int:
    """Show all tokens."""
    with Client(target_of(options, os.environ)) as client:
        found = client.read(ApiTokenList, "/tokens")
    if options.format == "json":
        say_json(found.model_dump(mode="json", by_alias=True))
    elif found.tokens:
        say(_table([_COLUMNS, *map(_row, found.tokens)]))
    else:
        tell("There are no tokens of people and CI.")
    return 0


def run_revoke(options: argparse.Namespace) -> int:
    """End a token. Where it is given itself, in place of its name, only its id is sent: addresses go into logs."""
    name = quote(without_secret(options.name), safe="")
    with Client(target_of(options, os.environ)) as client:
        ended = ApiTokenView.model_validate(client.post(f"/tokens/{name}/revocation", {}))
    say(f"{ended.name} ({ended.id}) is revoked")
    return 0


def _row(token: ApiTokenView) -> tuple[str, ...]:
    used = "never" if token.last_used_at is None else f"{token.last_used_at:%Y-%m-%d %H:%M}"
    ends = f"{token.expires_at:%Y-%m-%d %H:%M}"
    scopes = ",".join(token.scopes) + (f" (team {token.team})" if token.team else "")
    return token.name, token.id, token.kind, scopes, token.state, ends, used


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _doorway(target: Target, pin: str) -> Doorway:
    server = target.server if target.credential is None else target.credential.issuer
    return Doorway(server, target.trust.fingerprint, pin)
