"""A plan as text for a terminal, as Markdown for a pull request, and as JSON for a program."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from reconciler.forges.markdown import code
from schemas.plan import AgentChange, DataLoss, ObjectChange, Plan, TrafficChange
from schemas.problem import Problem

Style = Literal["text", "markdown", "json"]
_SIGNS: Final = {"create": "+", "update": "~", "delete": "-", "added": "+", "changed": "~", "removed": "-"}
_COLOURS: Final = {"+": "\x1b[32m", "~": "\x1b[33m", "-": "\x1b[31m", "!": "\x1b[31m"}
_RESET: Final = "\x1b[0m"
HOW_TO_APPROVE: Final = "cloudlunacy status says how"
"""The checksum of this plan would approve nothing: the one that counts names the revision, which is not there yet."""
REVOKED: Final = "Grants were revoked; until these files are mended or deleted, their last good versions go on serving"
LOST: Final = "Data that is deleted (deletionPolicy: delete)"
MARKDOWN_ROWS: Final = 200
"""Rows of a table in Markdown; a comment on a pull request has room for about 65,000 characters."""


def format_plan(plan: Plan, style: Style, *, colour: bool = False) -> str:
    """Write the plan; ends with a line end."""
    if style == "json":
        return json.dumps(plan.model_dump(mode="json", by_alias=True), indent=2) + "\n"
    lines = markdown_lines(plan) if style == "markdown" else _text(plan, colour=colour)
    return "\n".join(lines) + "\n"


def summary(plan: Plan) -> str:
    """Say in one line how much changes."""
    if plan.empty:
        return "No change."
    counts = {word: sum(change.action == word for change in plan.changes) for word in ("create", "update", "delete")}
    parts = [f"{counts['create']} to create, {counts['update']} to update, {counts['delete']} to delete"]
    parts.append(f"{len(plan.traffic)} host(s) and {len(plan.agents)} agent(s) affected")
    return f"{'; '.join(parts)}."


def _text(plan: Plan, *, colour: bool) -> Iterator[str]:
    yield from _section("Objects", [_object_line(change) for change in plan.changes], colour=colour)
    yield from _section("Traffic", [_traffic_line(change) for change in plan.traffic], colour=colour)
    yield from _section("Agents", [line for change in plan.agents for line in _agent_lines(change)], colour=colour)
    yield from _section(LOST, [f"! {_loss(one)}" for one in plan.losses], colour=colour)
    if plan.guard is not None:
        yield f"Held: {plan.guard.message}. Once it is pushed a person must approve it: {HOW_TO_APPROVE}."
    yield from _section(REVOKED, [f"! {path}" for path in plan.revoked], colour=colour)
    if plan.problems:
        yield f"{len(plan.problems)} problem(s): what they concern stays as it is; see cloudlunacy validate."
    yield summary(plan)


def _section(title: str, lines: Sequence[str], *, colour: bool) -> Iterator[str]:
    if not lines:
        return
    yield f"{title}:"
    for line in lines:
        tone = _COLOURS.get(line[0], "") if colour else ""
        yield f"  {tone}{line}{_RESET if tone else ''}"
    yield ""


def _object_line(change: ObjectChange) -> str:
    fields = f"  ({', '.join(change.fields)})" if change.fields else ""
    return f"{_SIGNS[change.action]} {change.kind} {_name(change)}{fields}"


def _name(change: ObjectChange) -> str:
    return f"{change.team}/{change.name}" if change.team else change.name


def _traffic_line(change: TrafficChange) -> str:
    match = f" {change.match}" if change.match else ""
    way = f"{change.before} ⇒ {change.after}" if change.action == "changed" else change.after or change.before
    return f"{_SIGNS[change.action]} {change.host}{match} ({change.entry_point}): {way}  [{', '.join(change.effects)}]"


def _loss(one: DataLoss) -> str:
    return f"{one.agent}: {' and '.join(one.data)} of {one.deployment}"


def _agent_lines(change: AgentChange) -> Iterator[str]:
    for sign, items in (("+", change.added), ("~", change.changed), ("-", change.removed)):
        for item in items:
            yield f"{sign} {change.name}: {item}"


def markdown_lines(plan: Plan, *, html: bool = True, problems: Sequence[Problem] | None = None) -> Iterator[str]:
    """Yield the plan as Markdown, line by line. Every text of the repository stands in code, where it does nothing.

    Args:
        plan: what would change.
        html: fold its parts with ``<details>``; some forges show HTML as it is written.
        problems: what is wrong, where more is known than the plan says.
    """
    yield "### CloudLunacy plan"
    yield ""
    yield summary(plan)
    if plan.guard is not None:
        yield ""
        yield f"> **Held**: {code(plan.guard.message)}. After the merge a person must approve it: {HOW_TO_APPROVE}."
    rows = [
        f"| {_SIGNS[one.action]} | {code(f'{one.host} {one.match}')} | {code(one.before) or '–'} "
        f"| {code(one.after) or '–'} | {', '.join(code(effect) for effect in one.effects)} |"
        for one in plan.traffic
    ]
    yield from _table("Traffic", "|  | host | before | after | effect |\n|---|---|---|---|---|", rows, html=html)
    rows = [
        f"| {_SIGNS[one.action]} | {one.kind} | {code(one.path)} | {', '.join(code(field) for field in one.fields)} |"
        for one in plan.changes
    ]
    yield from _table("Objects", "|  | kind | file | fields |\n|---|---|---|---|", rows, html=html)
    rows = [f"| {line[0]} | {code(line[2:])} |" for one in plan.agents for line in _agent_lines(one)]
    yield from _table("Agents", "|  | item |\n|---|---|", rows, html=html)
    yield from _table(LOST, "| what |\n|---|", [f"| {code(_loss(one))} |" for one in plan.losses], html=html)
    yield from _table(REVOKED, "| file |\n|---|", [f"| {code(path)} |" for path in plan.revoked], html=html)
    yield from problem_lines(plan.problems if problems is None else problems, html=html)


def problem_lines(problems: Sequence[Problem], *, html: bool = True) -> Iterator[str]:
    """Yield a table of what is wrong, nothing where nothing is."""
    rows = [f"| {code(f'{one.file}:{one.line}')} | {code(one.code)} | {_words(one)} |" for one in problems]
    yield from _table("Problems", "| where | code | what |\n|---|---|---|", rows, html=html)


def _words(problem: Problem) -> str:
    return " ".join(filter(None, (code(problem.message), code(problem.hint))))


def _table(title: str, head: str, rows: Sequence[str], *, html: bool) -> Iterator[str]:
    if not rows:
        return
    yield ""
    yield f"<details open><summary>{title} ({len(rows)})</summary>" if html else f"#### {title} ({len(rows)})"
    yield ""
    yield from head.split("\n")
    yield from rows[:MARKDOWN_ROWS]
    if len(rows) > MARKDOWN_ROWS:
        yield ""
        yield f"… and {len(rows) - MARKDOWN_ROWS} more"
    if html:
        yield ""
        yield "</details>"
