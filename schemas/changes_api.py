"""Changes of objects by people, as commits; what a file holds and held (docs/changes.md).

``GET    /api/v1/objects/{path}``                 one object → :class:`ObjectView`
``PUT    /api/v1/objects/{path}``                 write it, as YAML or as a document in JSON → :class:`ChangeAnswer`
``PATCH  /api/v1/objects/{path}``                 RFC 7396 → :class:`ChangeAnswer`
``DELETE /api/v1/objects/{path}``                 delete it → :class:`ChangeAnswer`
``GET    /api/v1/objects/{path}/history``         who changed it → :class:`History`
``POST   /api/v1/changes/check``                  what it would do :class:`Change` → :class:`ChangeCheck`
``POST   /api/v1/changes``                        several files :class:`Change` → :class:`ChangeAnswer`
``GET    /api/v1/changes/{change}``               how one stands that was accepted → :class:`ChangeAnswer`
``GET    /api/v1/revisions/{revision}/diff``      what it changed → :class:`RevisionDiff`
``GET    /api/v1/revisions/{revision}/revert``    what taking it back would do → :class:`ChangeCheck`
``POST   /api/v1/revisions/{revision}/revert``    take it back :class:`ActRequest` → :class:`ChangeAnswer`
``POST   /api/v1/agents/{name}/cordon``           no new work :class:`ActRequest` → :class:`ChangeAnswer`
``POST   /api/v1/agents/{name}/uncordon``         as before :class:`ActRequest` → :class:`ChangeAnswer`
``PUT    /api/v1/routes/{team}/{name}/weights``   move traffic :class:`WeightsRequest` → :class:`ChangeAnswer`

``path`` is the file's in the repository, such as ``routes/shop/web.yaml``; the ETag of an object is its blob id.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

from schemas.api import AgentCondition
from schemas.base import EMPTY, Model
from schemas.objects import Kind
from schemas.plan import Plan
from schemas.problem import Problem

OBJECT_PATH: Final = "/api/v1/objects/{path:path}"
HISTORY_PATH: Final = "/api/v1/objects/{path:path}/history"
CHANGES_PATH: Final = "/api/v1/changes"
CHANGE_PATH: Final = "/api/v1/changes/{change}"
CHECK_PATH: Final = "/api/v1/changes/check"
DIFF_PATH: Final = "/api/v1/revisions/{revision}/diff"
REVERT_PATH: Final = "/api/v1/revisions/{revision}/revert"
CORDON_PATH: Final = "/api/v1/agents/{name}/cordon"
UNCORDON_PATH: Final = "/api/v1/agents/{name}/uncordon"
WEIGHTS_PATH: Final = "/api/v1/routes/{team}/{name}/weights"
MERGE_PATCH: Final = "application/merge-patch+json"
"""RFC 7396."""
YAML_TYPE: Final = "application/yaml"
"""RFC 9512."""

MAX_FILE: Final = 65_536
"""Characters of one file."""
MAX_EDITS: Final = 64
"""Files of one change."""
MAX_BODY: Final = 1024 * 1024
"""Bytes of a change of several files."""

FilePath = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9._/-]+$")]
ObjectId = Annotated[str, StringConstraints(pattern=r"^(?:|[0-9a-f]{40}|[0-9a-f]{64})$")]
Message = Annotated[str, StringConstraints(max_length=4000)]
BackendName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class FileEdit(Model):
    """One file as it shall be: ``text`` None deletes it."""

    path: FilePath
    text: Annotated[str, StringConstraints(max_length=MAX_FILE)] | None = None
    expected: ObjectId | None = None
    """Blob id of the version that the person saw, empty where there was none. None: whatever is there."""


class Change(Model):
    """What a person wants changed, all of it in one commit."""

    edits: Annotated[tuple[FileEdit, ...], Field(min_length=1, max_length=MAX_EDITS)]
    message: Message = ""
    """The first line is the commit's subject. Without it one is made of what changes."""
    base: ObjectId = ""
    """Revision that the person saw: a file that was changed since is not overwritten. Empty: whatever is there."""
    proposal: bool | None = None
    """True: a branch that waits to be merged; None: as the fleet says."""
    accept_plain: bool = False
    """Values that look like secrets, and are none, may be committed in clear."""


class FileResult(Model):
    """A file as it would be after a change; ``text`` None where it is deleted."""

    path: str
    action: Literal["create", "update", "delete", "none"]
    text: str | None = None
    blob: str = ""
    """Of what is there now; empty where there is nothing."""


class ChangeCheck(Model):
    """What a change would do. It is refused where ``blocking`` is not empty."""

    base: str
    """Revision that it was checked on."""
    files: tuple[FileResult, ...]
    problems: tuple[Problem, ...] = ()
    """All that ``validate`` would say of these files, and what it would say of others that it does not say now."""
    blocking: tuple[Problem, ...] = ()
    """Of these, the errors that the change brings."""
    plan: Plan | None = None
    """None where there is no fleet file that can be judged by."""
    proposal: bool = False
    """It would become a branch with a pull request."""
    message: str = ""
    """Subject of the commit."""

    @property
    def empty(self) -> bool:
        """Whether it would change nothing."""
        return all(one.action == "none" for one in self.files)


class ChangeAnswer(Model):
    """What became of a change. ``pending``: it is kept on disk, and will be on the remote."""

    state: Literal["committed", "pending", "proposed", "conflicted", "nothing"]
    id: str = ""
    """Of the request; the commit's trailer ``CloudLunacy-Request``."""
    revision: str = ""
    branch: str = ""
    """The branch that waits to be merged."""
    pull_request: str = ""
    """URL, where the forge made one."""
    files: tuple[str, ...] = ()
    message: str = ""
    """Subject of the commit, or what stands in its way."""
    problems: tuple[Problem, ...] = ()
    """Warnings, and errors that were there before."""


class FileCommit(Model):
    """A commit that changed a file."""

    revision: str
    author: str
    email: str = ""
    subject: str
    time: datetime
    actor: str = ""
    """``kind:name`` of who asked the control plane for it; empty where it was pushed. A commit may claim anything."""


class History(Model):
    path: str
    commits: tuple[FileCommit, ...]
    """Newest first."""


class FileDiff(Model):
    """What a revision did to one file."""

    path: str
    action: Literal["create", "update", "delete"]
    patch: str = ""
    """Unified diff, without file names. Empty where it is not shown."""
    added: int = 0
    removed: int = 0
    """Lines."""
    truncated: bool = False
    """The patch is too long, or its file is no object, so that it is not shown whole."""


class RevisionDiff(Model):
    revision: str
    parent: str = ""
    """What it is compared with; empty for the first commit."""
    commit: FileCommit
    files: tuple[FileDiff, ...]
    left_out: int = 0
    """Further files, for which there was no room."""


class ActRequest(Model):
    """What the commit says, and how it gets there."""

    message: Message = ""
    proposal: bool | None = None


class WeightsRequest(ActRequest):
    weights: Annotated[dict[BackendName, Annotated[int, Field(ge=0, le=1000)]], Field(min_length=1, max_length=64)]
    """Backend → its share. A backend is named ``agent:port``, ``deployment``, ``deployment:port`` or
    ``deployment:portName``, as the route writes it; those that are not named keep theirs."""


class ObjectReference(Model):
    kind: str
    team: str = ""
    name: str
    path: str


class ServedBy(Model):
    """Where something of the object answers or runs."""

    agent: str
    state: str = ""
    """As the agent or the probe says; empty where nothing is known."""
    message: str = ""


class ObjectView(Model):
    """One object: what git wants, what is served, and what is seen of it."""

    kind: Kind
    team: str = ""
    name: str
    path: str
    blob: str = ""
    """Of the newest file; empty where there is none. It is the ETag."""
    revision: str = ""
    """That the text is of."""
    text: str | None = None
    """The newest file; None where there is none, or it is no text."""
    desired: dict[str, Any] | None = None
    """The newest document; None where it cannot be read."""
    served: dict[str, Any] | None = None
    """What is in service, where that is not ``desired``."""
    state: Literal["InService", "LastGood", "Quarantined", "Pending", "Gone"]
    """Pending: written, and not in service yet; Gone: deleted, and in service for now."""
    problems: tuple[Problem, ...] = ()
    conditions: tuple[AgentCondition, ...] = ()
    """Of an agent."""
    observed: tuple[ServedBy, ...] = ()
    """Agents that run a deployment, or that a route leads to."""
    references_out: tuple[ObjectReference, ...] = ()
    """What it names."""
    references_in: tuple[ObjectReference, ...] = ()
    """What names it."""
    last_change: FileCommit | None = None
    links: dict[str, str] = EMPTY
    """Word → URL of the API."""
