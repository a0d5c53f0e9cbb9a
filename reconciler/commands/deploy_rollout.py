"""``cloudlunacy deploy status|pause|resume``: how far a deployment is on its agents, and keeping it from going on."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from reconciler.commands.client import Client, add_target_options, target_of
from reconciler.commands.deploy_acting import Actions, add_deployment, path_of
from reconciler.commands.output import say, say_json, tell
from reconciler.commands.status_command import FIRST_PAUSE, LONGEST_PAUSE, seconds
from reconciler.errors import Transient
from schemas.rollout_api import RolloutOnAgent, RolloutStatus

_DECIDED: Final = frozenset({"Done", "Failed", "Paused"})
_SHORT: Final = len("sha256:") + 12


def add_actions(actions: Actions[argparse.ArgumentParser]) -> None:
    """Add to the actions of ``deploy``."""
    _add_status(actions)
    for name, about, more in (
        ("pause", "let no further agent get a change", "Agents that have it already go on. It holds until resume."),
        ("resume", "let changes go on", "It ends a pause of this command; rollout.paused in the file needs a commit."),
    ):
        parser = actions.add_parser(name, help=about, description=f"{about.capitalize()}. {more}")
        add_deployment(parser)
        parser.add_argument("--format", choices=("text", "json"), default="text")
        add_target_options(parser)
        parser.set_defaults(run=run_change, action=name)


def _add_status(actions: Actions[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "status",
        help="show how far a deployment is",
        description="Show each agent with the version that it has and what it says of it. With --wait: exit code 0 "
        "once every agent that is there runs the newest version, 1 when it failed, is paused or took too long.",
    )
    add_deployment(parser)
    parser.add_argument("--wait", action="store_true", help="wait until it is decided")
    parser.add_argument("--timeout", type=seconds, default=300.0, metavar="S", help="seconds to wait (default: 300)")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    add_target_options(parser)
    parser.set_defaults(run=run_status)


def run_status(options: argparse.Namespace) -> int:
    """Print where it stands."""
    with Client(target_of(options, os.environ)) as client:

        def ask() -> RolloutStatus:
            return client.read(RolloutStatus, f"{path_of(options)}/rollout")

        status = wait(ask, options.timeout, show_progress=sys.stderr.isatty()) if options.wait else ask()
    _print(status, options)
    return 0 if status.state == "Done" or not options.wait else 1


def wait(ask: Callable[[], RolloutStatus], timeout: float, *, show_progress: bool) -> RolloutStatus:
    """Ask until it is decided or the time is over; returns the last answer.

    Raises:
        Transient: when there was no answer at the end.
    """
    end, pause, shown = time.monotonic() + timeout, FIRST_PAUSE, ""
    while True:
        is_over = time.monotonic() >= end
        try:
            status = ask()
        except Transient:
            if is_over:
                raise
        else:
            if status.state in _DECIDED or is_over:
                return status
            if show_progress and status.message != shown:
                shown = status.message
                tell(f"{status.state}: {shown}")
        time.sleep(min(pause, max(0.0, end - time.monotonic())))
        pause = min(LONGEST_PAUSE, pause * 1.3)


def run_change(options: argparse.Namespace) -> int:
    """Pause it, or let it go on."""
    with Client(target_of(options, os.environ)) as client:
        answer: Any = client.post(f"{path_of(options)}/rollout/{options.action}", {})
    _print(RolloutStatus.model_validate(answer), options)
    return 0


def _print(status: RolloutStatus, options: argparse.Namespace) -> None:
    if options.format == "json":
        say_json(status.model_dump(mode="json", by_alias=True))
    else:
        say("\n".join(lines(status)))


def lines(status: RolloutStatus) -> Iterator[str]:
    """Write it, one agent a line."""
    by = f"  (revision {status.revision[:12]})" if status.revision else ""
    yield f"{status.team}/{status.name}  {status.state}{by}"
    if status.message:
        yield f"  {status.message}"
    if status.paused_by and status.state != "Paused":
        yield f"  paused by {status.paused_by}: the next change reaches no agent"
    yield f"  version {status.version[:_SHORT]}, on at most {status.max_unavailable} agent(s) at once"
    for agent in status.agents:
        yield _line(agent, status.version)


def _line(agent: RolloutOnAgent, newest: str) -> str:
    version = "newest" if agent.version == newest else agent.version[:_SHORT] or "none"
    said = agent.reason or agent.state
    since = f" since {agent.since.strftime('%Y-%m-%d %H:%M:%S')}" if agent.since is not None else ""
    more = f": {agent.message}" if agent.message else ""
    return f"  {agent.agent:<20} {agent.place:<9} {version:<{_SHORT}} {said}{since}{more}"
