"""What has to be done so that a machine is as it is wanted, from what is there. PURE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from agent.installing.layout import DATA, OPT, UNIT, USER


class Step(NamedTuple):
    name: str
    text: str
    """What is done, beginning with a verb: "write …"."""


class Cannot(Exception):
    """It cannot be done here; the message says why, and what to do. Nothing was changed."""


class Facts(NamedTuple):
    """What is there."""

    systemd: bool
    root: bool
    """May change the machine."""
    enrolled_as: str | None = None
    unit: str | None = None
    """Text of the unit."""
    enabled: bool = False
    active: bool = False
    user: bool = False
    """The system user exists."""
    data: bool = False
    program: bool = False
    """Something of ours lies in ``/opt/cloudlunacy``."""


class Installation(NamedTuple):
    """What is wanted."""

    name: str
    server: str
    unit: str
    as_root: bool
    start: bool = True
    """Not on a machine that is only prepared."""
    data: PurePosixPath = DATA


class Removal(NamedTuple):
    deployments: bool
    """Also what runs goes: containers and programs of this agent."""
    purge: bool
    """Also its data go: key, certificates, volumes, databases."""


def by_hand(program: str, name: str, server: str) -> str:
    """Return the sentence for a machine without systemd."""
    return (
        "this machine has no systemd, so nothing would start the agent. By hand: "
        f"{program} agent enrol --server {server} --ca-sha256 HEX --token-file - --name {name} --data {DATA}, "
        f"and under a supervisor of yours: {program} agent run --data {DATA}"
    )


def install(facts: Facts, wanted: Installation, program: str) -> Sequence[Step]:
    """Return what is left to do. Raises Cannot."""
    _require_able(facts, wanted, program)
    steps = []
    if not wanted.as_root and not facts.user:
        steps.append(Step("add-user", f"make the system user {USER}"))
    if not facts.data:
        owner = "root" if wanted.as_root else USER
        steps.append(Step("make-data", f"make {wanted.data}, for {owner} alone"))
    if facts.enrolled_as is None:
        steps.append(Step("enrol", f"enrol as {wanted.name} with {wanted.server}"))
    changed = facts.unit != wanted.unit
    if changed:
        steps.append(Step("write-unit", f"write the unit {UNIT}"))
    if not facts.enabled:
        steps.append(Step("enable", f"enable {UNIT}, so that it starts with the machine"))
    if wanted.start:
        if changed or not facts.active or facts.enrolled_as is None:
            steps.append(Step("restart", f"start {UNIT}"))
        steps.append(Step("await-connection", "wait until the agent is connected"))
    return steps


def _require_able(facts: Facts, wanted: Installation, program: str) -> None:
    if not facts.systemd:
        raise Cannot(by_hand(program, wanted.name, wanted.server))
    if not facts.root:
        raise Cannot("only root can do that; run it with sudo.")
    if facts.enrolled_as not in (None, wanted.name):
        raise Cannot(
            f"this machine is agent {facts.enrolled_as} already. To make it {wanted.name}: "
            "cloudlunacy agent uninstall --purge, then again."
        )


def uninstall(facts: Facts, wanted: Removal) -> Sequence[Step]:
    """Return what is left to do; on a machine where nothing is left, nothing. Raises Cannot."""
    if not facts.root:
        raise Cannot("only root can do that; run it with sudo.")
    if (wanted.deployments or wanted.purge) and facts.data and facts.enrolled_as is None and facts.unit is not None:
        raise Cannot(f"{DATA} does not say which agent this is, so what belongs to it is not known; use --keep-data.")
    steps = []
    if facts.active or facts.enabled:
        steps.append(Step("stop", f"stop and disable {UNIT}"))
    if (wanted.deployments or wanted.purge) and facts.enrolled_as is not None:
        what = "containers, programs and their volumes" if wanted.purge else "containers and programs"
        steps.append(Step("remove-deployments", f"remove {what} of agent {facts.enrolled_as}, and nobody else's"))
    if facts.unit is not None:
        steps.append(Step("remove-unit", f"remove the unit {UNIT}"))
    if wanted.purge and facts.data:
        steps.append(Step("remove-data", f"remove {DATA}, with its key"))
    if wanted.purge and facts.user:
        steps.append(Step("remove-user", f"remove the system user {USER}"))
    if facts.program:
        steps.append(Step("remove-program", f"remove the program from {OPT}"))
    return steps
