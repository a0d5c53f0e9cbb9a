"""``cloudlunacy deploy logs|restart|exec``: commands to agents, and what they say as they say it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from reconciler.commands.client import Client, add_target_options, target_of
from reconciler.commands.output import tell
from reconciler.commands.remote_output import Printer
from reconciler.errors import Broken
from schemas.deployments_api import LONGEST_COMMAND, MAX_TAIL, CommandLine

Actions = argparse._SubParsersAction  # noqa: SLF001 - argparse has no other name for it


def add_actions(actions: Actions[argparse.ArgumentParser]) -> None:
    """Add to the actions of ``deploy``."""
    _add_logs(actions)
    _add_restart(actions)
    _add_exec(actions)


def add_deployment(parser: argparse.ArgumentParser) -> None:
    """Add the deployment that an action is about, as ``options.deployment``: a pair of team and name."""
    parser.add_argument("deployment", metavar="TEAM/NAME", type=team_and_name, help="the deployment")


def team_and_name(text: str) -> tuple[str, str]:
    """Read TEAM/NAME for argparse."""
    team, slash, name = text.partition("/")
    if not (team and slash and name) or "/" in name:
        raise argparse.ArgumentTypeError(f'"{text}" is no deployment; write TEAM/NAME, such as shop/web')
    return team, name


def path_of(options: argparse.Namespace) -> str:
    """Return the path of the deployment in the API."""
    team, name = options.deployment
    return f"/deployments/{quote(team, safe='')}/{quote(name, safe='')}"


def _add_logs(actions: Actions[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "logs",
        help="show what a deployment writes",
        description="Show the last lines of a deployment's log; with -f go on until Ctrl-C. Values of its secrets are "
        "left out where the agent knows them.",
    )
    add_deployment(parser)
    parser.add_argument("--agent", metavar="NAME", help="only there (default: on all its agents)")
    parser.add_argument("--tail", type=_lines, default=100, metavar="N", help="lines of before (default: %(default)s)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on, for an hour at most")
    add_target_options(parser)
    parser.set_defaults(run=run_logs)


def _lines(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) <= MAX_TAIL):
        raise argparse.ArgumentTypeError(f'"{text}" is no number of lines up to {MAX_TAIL}')
    return int(text)


def _add_restart(actions: Actions[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "restart",
        help="have a fresh instance made",
        description="Have a fresh instance of the same version take the place of the one that runs, by the way of a "
        "roll-out: where it does not become healthy, the former one goes on. Agents come one after the other. Ctrl-C "
        "ends the waiting and not the restart that is under way.",
    )
    add_deployment(parser)
    parser.add_argument("--agent", metavar="NAME", help="only there")
    parser.add_argument("--timeout", type=_seconds, metavar="S", help="seconds for each agent (default: its deadline)")
    add_target_options(parser)
    parser.set_defaults(run=run_restart)


def _add_exec(actions: Actions[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "exec",
        help="run a program where a deployment runs",
        description="Run a program in the running instance, without input, and exit with its exit code. The fleet file "
        "has to allow it for the team (spec.commands.exec). Ctrl-C ends the program.",
    )
    add_deployment(parser)
    parser.add_argument("--agent", metavar="NAME", help="where; needed when it runs on several")
    parser.add_argument("--timeout", type=_seconds, default=60.0, metavar="S", help="seconds (default: %(default)g)")
    add_target_options(parser)
    parser.add_argument("command", nargs="+", metavar="PROGRAM", help="after --: what to run, and its arguments")
    parser.set_defaults(run=run_exec)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= LONGEST_COMMAND:
        raise argparse.ArgumentTypeError(f'"{text}" is no time in seconds up to {LONGEST_COMMAND:g}')
    return value


def run_logs(options: argparse.Namespace) -> int:
    """Show what it wrote, and with ``--follow`` what it writes."""
    query = {"agent": options.agent, "tail": str(options.tail), "follow": "true" if options.follow else None}
    return say_lines(options, "GET", f"{path_of(options)}/logs", query=query)


def run_restart(options: argparse.Namespace) -> int:
    """Restart it on each agent; 1 when one did not come up."""
    body = {name: value for name, value in (("agent", options.agent), ("seconds", options.timeout)) if value}
    return say_lines(options, "POST", f"{path_of(options)}/restart", body, named=True)


def run_exec(options: argparse.Namespace) -> int:
    """Run it and return its exit code."""
    body = {"command": options.command, "seconds": options.timeout}
    body |= {"agent": options.agent} if options.agent else {}
    return say_lines(options, "POST", f"{path_of(options)}/exec", body)


def say_lines(
    options: argparse.Namespace,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    query: Mapping[str, str | None] | None = None,
    *,
    named: bool = False,
) -> int:
    """Print what comes; return the exit code of what ran, or 1 where something ended badly."""
    code, printer = 0, Printer(named=named)
    # leaving the block closes the connection, and so ends what runs
    with (
        Client(target_of(options, os.environ)) as client,
        closing(client.lines(method, path, body, **(query or {}))) as lines,
    ):
        for line in _read(lines):
            printer.take(line)
            if line.ended:
                code = max(code, _code(line))
    printer.finish()
    if not printer.ended:
        raise Broken("the control plane ended the answer before the command had ended.", hint="Is it shutting down?")
    return code


def _read(lines: Iterator[str]) -> Iterator[CommandLine]:
    for line in lines:
        try:
            yield CommandLine.model_validate_json(line)
        except ValidationError:
            raise Broken("what answers is no control plane of this version.", hint="Check the address.") from None


def _code(line: CommandLine) -> int:
    if line.reason:
        tell(f"{line.agent}: {line.reason}: {line.message}")
        return 1
    return (line.exit_code or 0) & 0xFF
