"""Changes that people make: what is built for them, and what is told of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from reconciler.agents.group_commit import GroupCommitter
from reconciler.changes.branch import Branch
from reconciler.changes.service import Changes, Proposed
from reconciler.desired.view import OpenSecret
from reconciler.pki.authenticator import Authenticator
from reconciler.web.change_api import ChangeApi
from reconciler.web.object_file_api import ObjectFileApi
from schemas.objects import key_of_path

if TYPE_CHECKING:
    from reconciler.app.serving import Serving


def is_object(path: str) -> bool:
    """Say whether a commit by a person may write a file."""
    return key_of_path(path) is not None


def make_changes(plane: Serving, committer: GroupCommitter, open_sealed: OpenSecret) -> Changes:
    """Return what pages and the API change objects with."""
    tracker, loop = plane._tracker, plane.loop  # noqa: SLF001 - the composition root holds them
    changes = Changes(
        store=plane._store,  # noqa: SLF001
        committer=committer,
        branch=Branch(plane.mirror, lambda: tracker.newest or loop.published.revision),
        state=lambda: loop.published.state,
        open_sealed=open_sealed,
        wake=loop.wake,
    )

    async def open_pull_request(proposed: Proposed) -> str:
        return await plane.forges.proposed(proposed.branch, proposed.base, proposed.title, proposed.body)

    changes.on_proposed = open_pull_request
    return changes


def change_apis(plane: Serving, changes: Changes, authenticator: Authenticator) -> tuple[ObjectFileApi, ChangeApi]:
    """Return their endpoints."""
    return (
        ObjectFileApi(control=plane, changes=changes, authenticator=authenticator, clock=time.time),
        ChangeApi(changes=changes, authenticator=authenticator, clock=time.time),
    )
