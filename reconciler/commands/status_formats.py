"""The convergence record of a revision as text."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from schemas.status import STAGES, DeploymentRollout, RevisionStatus

_COLOURS: Final = {"Converged": "\x1b[32m", "Held": "\x1b[33m", "Failed": "\x1b[31m", "Progressing": "\x1b[36m"}
_RESET: Final = "\x1b[0m"


def format_status(status: RevisionStatus, target: str = "", *, colour: bool = False) -> str:
    """Write the record, one stage a line, with the time since the stage before.

    ``target``: the options by which a command reaches the control plane, such as ``--data DIR``.
    """
    return "\n".join(_lines(status, target, colour=colour)) + "\n"


def approve_command(status: RevisionStatus, target: str) -> str:
    """Return the command that lets a held revision go on, empty where there is none."""
    return f"cloudlunacy approve {shlex.quote(status.approve)} {target}".rstrip() if status.approve else ""


def stage_line(stage: str, at: datetime, before: datetime | None) -> str:
    """Write one stage: when it was reached, and how long after the one before, where it came after it.

    Agents are not kept waiting for a front that does not answer, so pushed may come before loaded.
    """
    since = f"  +{(at - before).total_seconds() * 1000:.0f} ms" if before is not None and at >= before else ""
    return f"  {stage:<12} {at.strftime('%H:%M:%S.%f')}{since}"


def _lines(status: RevisionStatus, target: str, *, colour: bool) -> Iterator[str]:
    tone = _COLOURS.get(status.state, "") if colour else ""
    generation = f"generation {status.generation}" if status.generation else "nothing published"
    yield f"{status.revision[:12]}  {tone}{status.state}{_RESET if tone else ''}  {status.reason}  ({generation})"
    if status.commit.subject:
        yield f"  “{status.commit.subject}” by {status.commit.author}"
    if status.message:
        yield f"  {status.message}"
    if command := approve_command(status, target):
        yield f"  To approve: {command}"
    before = None
    for stage in STAGES:
        at = status.stages.get(stage)
        if at is None:
            yield f"  {stage:<12} –"
            continue
        yield stage_line(stage, at, before)
        before = at
    for name, agent in sorted(status.agents.items()):
        when = agent.applied.strftime(" %H:%M:%S.%f") if agent.applied else ""
        why = f": {agent.message or agent.reason}" if agent.message or agent.reason else ""
        yield f"  agent {name:<20} {agent.state}{when}{why}"
    for name, rollout in status.rollouts.items():
        yield from rollout_lines(name, rollout)
    for problem in status.quarantined:
        yield f"  {problem}"


def rollout_lines(name: str, rollout: DeploymentRollout) -> Iterator[str]:
    """Write where the roll-out of a deployment stands, with one line of steps for each agent."""
    yield f"  rollout {name}  {rollout.state}{f': {rollout.message}' if rollout.message else ''}"
    for agent, one in rollout.agents.items():
        steps = ", ".join(f"{step.reason or step.state} {step.at.strftime('%H:%M:%S')}" for step in one.steps)
        yield f"    {agent:<20} {one.state:<9} {steps}".rstrip()
    if rollout.left_out:
        yield f"    and {rollout.left_out} more agent(s)"
