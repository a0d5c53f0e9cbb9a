"""Changes that people make by the API and the dashboard: checked, and committed in their name (docs/adr/0050)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from reconciler.pki.authenticator import Identity
from schemas.changes_api import Change, ChangeAnswer, ChangeCheck, FileCommit, RevisionDiff


@dataclass(frozen=True, slots=True)
class Proposed:
    """A branch that was pushed for a pull request."""

    branch: str
    base: str
    """The branch that it is to be merged into."""
    title: str
    body: str
    actor: str
    revision: str
    files: tuple[str, ...]


OnProposed = Callable[[Proposed], Awaitable[str]]
"""Opens the pull request; returns its URL, or an empty text where there is none."""


class Changes:
    """What pages and the API ask for."""

    async def check(self, change: Change) -> ChangeCheck:
        """Say what a change would do; nothing is written.

        Raises:
            Refused: 412 ``changed-since``; 422 ``not-an-object``; 503 ``not-ready``.
        """
        raise NotImplementedError

    async def submit(self, change: Change, identity: Identity, *, key: str = "") -> ChangeAnswer:
        """Have a change committed; ``key``: the same key with the same change is one commit.

        Raises:
            Refused: 403 ``insufficient-scope``, ``other-team``; 412 ``changed-since``; 422 ``change-refused`` with the
                problems; 429; 503.
        """
        raise NotImplementedError

    async def reverting(self, revision: str, *, message: str = "", proposal: bool | None = None) -> Change:
        """Return the change that takes a revision back, to be checked or submitted.

        Raises:
            Refused: 404 ``unknown-revision``; 409 ``first-commit``, ``nothing-to-revert``, ``changed-since-revert``.
        """
        raise NotImplementedError

    async def revert(self, revision: str, identity: Identity, *, key: str = "") -> ChangeAnswer:
        """Take a revision back: :meth:`reverting`, submitted."""
        raise NotImplementedError

    async def text(self, path: str) -> str | None:
        """Return the newest text of an object's file; None where there is none."""
        raise NotImplementedError

    async def history(self, path: str, limit: int = 50) -> tuple[FileCommit, ...]:
        """Return who changed a file, newest first."""
        raise NotImplementedError

    async def diff(self, revision: str) -> RevisionDiff:
        """Return what a revision changed, beside its first parent.

        Raises:
            Refused: 404 ``unknown-revision``.
        """
        raise NotImplementedError
