"""Requests and answers of the API for deployments.

``GET  /api/v1/deployments``                       all that the caller may see    → :class:`DeploymentList`
``GET  /api/v1/databases``                         those that are databases       → :class:`DeploymentList`
``GET  /api/v1/deployments/{team}/{name}``         one                            → :class:`DeploymentView`
``GET  /api/v1/deployments/{team}/{name}/logs``    what it wrote                  → lines of :class:`CommandLine`
``POST /api/v1/deployments/{team}/{name}/restart`` :class:`RestartRequest`        → lines of :class:`CommandLine`
``POST /api/v1/deployments/{team}/{name}/exec``    :class:`ExecRequest`           → lines of :class:`CommandLine`
``POST /api/v1/deployments/{team}/{name}/backup``  :class:`BackupRequest`         → lines of :class:`CommandLine`
``GET  /api/v1/deployments/{team}/{name}/backups`` those that the agent keeps     → lines of :class:`CommandLine`
``POST /api/v1/deployments/{team}/{name}/restore`` :class:`RestoreRequest`        → lines of :class:`CommandLine`

What a command says comes as it is said, one JSON object a line (``application/x-ndjson``); an empty line only says that
the answer goes on. Agents that work at once each have a line without text first; the last line of each has ``ended``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from schemas.base import Model
from schemas.deployment import Argument
from schemas.names import Name
from schemas.observation import DeploymentObservation
from schemas.session import ItemResult

DEPLOYMENTS_PATH: Final = "/api/v1/deployments"
DATABASES_PATH: Final = "/api/v1/databases"
DEPLOYMENT_PATH: Final = "/api/v1/deployments/{team}/{name}"
LOGS_PATH: Final = f"{DEPLOYMENT_PATH}/logs"
RESTART_PATH: Final = f"{DEPLOYMENT_PATH}/restart"
EXEC_PATH: Final = f"{DEPLOYMENT_PATH}/exec"
BACKUP_PATH: Final = f"{DEPLOYMENT_PATH}/backup"
BACKUPS_PATH: Final = f"{DEPLOYMENT_PATH}/backups"
RESTORE_PATH: Final = f"{DEPLOYMENT_PATH}/restore"
LINES: Final = "application/x-ndjson"
MAX_TAIL: Final = 10_000
"""Lines of a log that may be asked for at once."""
LONGEST_COMMAND: Final = 3600.0
"""Seconds that a command may take."""

Seconds = Annotated[float, Field(gt=0, le=LONGEST_COMMAND, allow_inf_nan=False)]


class DeploymentOnAgent(Model):
    """How it stands on one agent. ``observed``: what serves there, as it last said; None where it said nothing."""

    agent: str
    connected: bool
    last_seen: datetime | None = None
    result: ItemResult | None = None
    """Of the document that the agent last reported on."""
    observed: DeploymentObservation | None = None


class DeploymentView(Model):
    team: str
    name: str
    type: Literal["container", "process", "mongodb"]
    path: str
    """Its file in the state repo."""
    image: str = ""
    agents: tuple[DeploymentOnAgent, ...] = ()


class DeploymentDetail(DeploymentView):
    spec: dict[str, Any]
    """As in its file."""
    exec_allowed: bool
    """The fleet file lets people run programs in what this team deploys."""


class DeploymentList(Model):
    deployments: tuple[DeploymentView, ...]
    next: str = ""
    """Give it as ``after`` for the next page; empty on the last one."""


class RestartRequest(Model):
    """Have a fresh instance of the same version made. Without ``agent`` on one agent after the other."""

    agent: Name | None = None
    seconds: Seconds | None = None
    """How long each may take; without it as long as its roll-out may, and a little longer."""


class ExecRequest(Model):
    """Run a program where the deployment runs. ``agent`` is needed where it runs on several."""

    command: Annotated[tuple[Argument, ...], Field(min_length=1, max_length=64)]
    agent: Name | None = None
    seconds: Seconds = 60.0


class BackupRequest(Model):
    """Make a backup of a database now. ``agent`` is needed where it runs on several."""

    agent: Name | None = None


class RestoreRequest(Model):
    """Write a backup back. ``confirm``: the deployment's ``team/name`` once more."""

    archive: Annotated[str, Field(min_length=1, max_length=128)]
    """Its id, as ``backups`` says it."""
    confirm: Annotated[str, Field(max_length=128)]
    replace: bool = False
    """Data that is there may go."""
    agent: Name | None = None


class CommandLine(Model):
    """A part of what a command says. On the ``ended`` one, ``reason`` is empty where it ended well."""

    agent: str
    command: str = ""
    """Its id, as in the timeline."""
    text: str = ""
    stream: Literal["stdout", "stderr"] = "stdout"
    dropped: int = 0
    """Lines left out before this part, because nobody took them in time."""
    ended: bool = False
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
