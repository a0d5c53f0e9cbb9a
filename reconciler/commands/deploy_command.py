"""``cloudlunacy deploy``: what runs on agents, and what people do with it that is no change of what is wanted."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from reconciler.commands import deploy_acting, deploy_database, deploy_rollout
from reconciler.commands.client import Client, add_target_options, target_of
from reconciler.commands.output import say, say_json, tell
from schemas.deployments_api import DeploymentList, DeploymentOnAgent, DeploymentView

_COLUMNS = ("DEPLOYMENT", "TYPE", "AGENT", "STATE", "MESSAGE")


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    """Add ``deploy`` with its actions; return the actions, for further ones."""
    about = "look at deployments, and act on them"
    parser = subparsers.add_parser("deploy", help=about, description="Look at deployments, and act on what runs.")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_list(actions)
    deploy_rollout.add_actions(actions)
    deploy_acting.add_actions(actions)
    deploy_database.add_actions(actions)
    return actions


def _add_list(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser("list", help="show deployments", description="Show how deployments stand on agents.")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    add_target_options(parser)
    parser.set_defaults(run=run_list)


def run_list(options: argparse.Namespace) -> int:
    """Show all that the caller may see."""
    found: list[DeploymentView] = []
    with Client(target_of(options, os.environ)) as client:
        following: str | None = None
        while following != "":
            page = client.read(DeploymentList, "/deployments", after=following)
            found += page.deployments
            following = page.next
    if options.format == "json":
        say_json(DeploymentList(deployments=tuple(found)).model_dump(mode="json", by_alias=True, exclude_none=True))
    elif found:
        say(_table([_COLUMNS, *(row for one in found for row in _rows(one))]))
    else:
        tell("There are no deployments.")
    return 0


def _rows(one: DeploymentView) -> list[tuple[str, ...]]:
    name = f"{one.team}/{one.name}"
    rows: list[tuple[str, ...]] = [(name, one.type, agent.agent, *_standing(agent)) for agent in one.agents]
    return rows or [(name, one.type, "-", "-", "It runs on no agent.")]


def _standing(agent: DeploymentOnAgent) -> tuple[str, str]:
    """Return state and message."""
    result = agent.result
    if result is None:
        return "Unknown", "The agent has said nothing of it yet."
    state = result.reason or result.state
    return (state, result.message) if agent.connected else (f"{state}?", "The agent is not connected; as it last said.")


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
