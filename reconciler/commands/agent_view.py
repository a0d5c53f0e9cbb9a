"""``cloudlunacy agent list`` and ``agent show``: how agents stand, as the control plane knows it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from reconciler.commands.client import Client, add_target_options, target_of
from reconciler.commands.output import say, say_json, tell
from reconciler.web.amounts import amount, part, size, span
from schemas.api import AgentCondition, AgentDetail, AgentList, AgentStatus
from schemas.metrics import DEPLOYMENT, MACHINE, Unit

COLUMNS: Final = (
    *("NAME", "STATE", "CONNECTED", "WORKLOADS", "DATA PLANE"),
    *("CPU", "MEMORY FREE", "DISK FREE", "VERSION", "SEEN"),
)
_WORDS: Final = {"True": "yes", "False": "no", "Unknown": "unknown"}


def add_actions(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add to the actions of ``agent``."""
    listing = actions.add_parser(
        "list", help="show how all agents stand", description="Show how all agents stand, one a line."
    )
    shown = actions.add_parser(
        "show",
        help="show how an agent stands",
        description="Show the conditions of an agent, what it told last, what it measured and what its deployments "
        "use.",
    )
    shown.add_argument("name", metavar="NAME", help="name of the agent")
    for parser, run in ((listing, run_list), (shown, run_show)):
        parser.add_argument("--format", choices=("text", "json"), default="text")
        add_target_options(parser)
        parser.set_defaults(run=run)


def run_list(options: argparse.Namespace) -> int:
    """Show all, page by page."""
    agents: list[AgentStatus] = []
    with Client(target_of(options, os.environ)) as client:
        after = ""
        while True:
            page = client.read(AgentList, "/agents", after=after or None, limit=1000)
            agents += page.agents
            after = page.next
            if not after:
                break
    if options.format == "json":
        say_json({"agents": [one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in agents]})
    elif agents:
        now = datetime.now(UTC)
        say(_table([COLUMNS, *(row(one, now) for one in agents)]))
    else:
        tell("There are no agents in service.")
    return 0


def run_show(options: argparse.Namespace) -> int:
    """Show one."""
    with Client(target_of(options, os.environ)) as client:
        agent = client.read(AgentDetail, f"/agents/{quote(options.name, safe='')}")
    if options.format == "json":
        say_json(agent.model_dump(mode="json", by_alias=True, exclude_none=True))
    else:
        say("\n".join(lines(agent, datetime.now(UTC))))
    return 0


def row(agent: AgentStatus, now: datetime) -> tuple[str, ...]:
    """Return the line of a table. Numbers of an agent that nobody hears are not shown: they are what they were."""
    status = {one.type: one.status for one in agent.conditions}
    fresh = status.get("Connected") == "True"
    metrics = agent.metrics if fresh else {}
    return (
        agent.name,
        _state(agent),
        *(_WORDS[status.get(kind, "Unknown")] for kind in ("Connected", "Workloads", "DataPlane")),
        _part(metrics.get("machine_cpu_ratio")),
        _share(metrics, "machine_memory_available_bytes", "machine_memory_total_bytes"),
        _share(metrics, "machine_disk_free_bytes", "machine_disk_total_bytes"),
        agent.version or "-",
        _ago(agent.last_seen, now),
    )


def lines(agent: AgentDetail, now: datetime) -> list[str]:
    """Return what to tell a person about one agent."""
    enrolled = "" if agent.enrolled else ", not enrolled"
    version, seen = agent.version or "unknown", _ago(agent.last_seen, now)
    found = [
        f"{agent.name}: {agent.state}, {agent.presence}{enrolled}, version {version}, seen {seen}",
        f"wanted generation {agent.wanted_generation}, applied {agent.applied_generation} {agent.outcome}".rstrip(),
        *([agent.message] if agent.message else []),
        *_drained(agent),
    ]
    found += _section(("CONDITION", "STATUS", "SINCE", "HEARD", "REASON"), _conditions(agent.conditions, now))
    endpoints = (
        (str(one.port), str(one.actual), one.deployment or "-", one.verdict, _ago(one.since, now), one.reason or "-")
        for one in agent.endpoints
    )
    found += _section(("PORT", "ANSWERS AT", "DEPLOYMENT", "VERDICT", "SINCE", "OUT, BECAUSE"), endpoints)
    items = ((one.id, one.state, one.reason or "-", one.message) for one in agent.items)
    found += _section(("ITEM", "STATE", "REASON", "MESSAGE"), items)
    usage = ((f"{one.team}/{one.name}", *_usage(one.values)) for one in agent.deployments)
    found += _section(("DEPLOYMENT", "CPU", "MEMORY", "PROCESSES", "RESTARTS"), usage)
    if agent.metrics:
        fresh = any(one.type == "Connected" and one.status == "True" for one in agent.conditions)
        found += ["", "MEASURED" if fresh else "MEASURED, when it was seen last", *_measured(agent.metrics)]
    return found


def _state(agent: AgentStatus) -> str:
    if not agent.enrolled:
        return "not enrolled"
    return f"{agent.state}, drained" if agent.drain is not None else agent.state


def _drained(agent: AgentStatus) -> list[str]:
    drain = agent.drain
    if drain is None:
        return []
    until = "" if drain.until is None else f" until {drain.until:%Y-%m-%d %H:%M} UTC"
    why = f": {drain.reason}" if drain.reason else ""
    return [f"drained by {drain.by} since {drain.since:%Y-%m-%d %H:%M} UTC{until}{why}"]


def _section(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    found = list(rows)
    return ["", *_table([head, *found]).splitlines()] if found else []


def _conditions(conditions: Iterable[AgentCondition], now: datetime) -> Iterable[tuple[str, ...]]:
    for one in conditions:
        why = f"{one.reason}: {one.message}" if one.message else one.reason
        yield one.type, one.status, _ago(one.since, now), _ago(one.heard, now), why


def _usage(values: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(
        "-" if (value := values.get(name)) is None else amount(value, DEPLOYMENT[name].unit)
        for name in ("cpu_cores", "memory_bytes", "pids", "restarts")
    )


def _measured(metrics: Mapping[str, float]) -> list[str]:
    width = max(map(len, metrics))
    units: dict[str, Unit] = {name: one.unit for name, one in MACHINE.items()}
    return [f"  {name.ljust(width)}  {amount(value, units.get(name, 'count'))}" for name, value in metrics.items()]


def _part(value: float | None) -> str:
    return "-" if value is None else part(value)


def _share(metrics: Mapping[str, float], free: str, total: str) -> str:
    if free not in metrics or not metrics.get(total):
        return "-"
    return f"{size(metrics[free])} ({_part(metrics[free] / metrics[total])})"


def _ago(when: datetime | None, now: datetime) -> str:
    return "never" if when is None else f"{span(max(0.0, (now - when).total_seconds()))} ago"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
