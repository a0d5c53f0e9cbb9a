"""What every forge can do, and the two things that are done with it in several steps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from reconciler.errors import Rejected

Kind = Literal["github", "gitlab", "gitea", "bitbucket"]
"""``gitea`` is Forgejo as well."""
State = Literal["pending", "success", "failure", "cancelled"]
"""``cancelled``: nobody waits for this commit any more, and nothing failed."""

CONTEXT: Final = "cloudlunacy"
"""Name of the status; each forge keeps the newest one of a name for a commit."""
MOST_TITLE: Final = 200
"""Characters; GitLab and Bitbucket take 255."""


@dataclass(frozen=True, slots=True)
class Place:
    """A repository at a forge. ``api``: URL without a slash at its end; ``repository``: ``owner/name``."""

    kind: Kind
    api: str
    repository: str


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """``description`` may be longer than a forge takes: it is cut there."""

    state: State
    description: str
    url: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """A branch that is to be merged into ``base``. ``body`` is Markdown, made safe by whoever wrote it."""

    branch: str
    base: str
    title: str
    body: str


@dataclass(frozen=True, slots=True)
class PullRequest:
    """``number``: as people say it; ``url``: the page for them."""

    number: int
    url: str


@dataclass(frozen=True, slots=True)
class Comment:
    """``is_ours``: written by whoever the token belongs to. Anybody may copy a marker into a comment of their own.

    ``path``: of the comment, below the API.
    """

    path: str
    body: str
    is_ours: bool


class Forge(Protocol):
    """One repository at one forge.

    Every method raises Transient (away, slow, or asked too often: ``retry_after``), Broken (the token, or the
    repository, is wrong: a person must mend the settings) and Rejected (the forge refuses this one request).
    """

    @property
    def place(self) -> Place: ...

    @property
    def comment_limit(self) -> int:
        """Characters of a comment."""
        ...

    @property
    def shows_html(self) -> bool:
        """Whether comments may fold parts away with ``<details>``."""
        ...

    async def has_status(self, revision: str, status: CommitStatus) -> bool:
        """Say whether this is what the forge shows for the commit now."""
        ...

    async def set_status(self, revision: str, status: CommitStatus) -> None: ...

    async def find_pull_request(self, branch: str, base: str) -> PullRequest | None:
        """Return the open one from ``branch`` of this very repository, not of a fork."""
        ...

    async def open_pull_request(self, proposal: Proposal) -> PullRequest: ...

    def comments(self, number: int) -> AsyncIterator[Comment]:
        """Oldest first, all pages."""
        ...

    async def add_comment(self, number: int, body: str) -> None: ...

    async def edit_comment(self, comment: Comment, body: str) -> None: ...

    async def close(self) -> None: ...


async def propose(forge: Forge, proposal: Proposal) -> tuple[PullRequest, bool]:
    """Return the pull request of a branch, and whether it was opened now: there never are two.

    Raises:
        Transient, Broken, Rejected: as the forge.
    """
    found = await forge.find_pull_request(proposal.branch, proposal.base)
    if found is not None:
        return found, False
    try:
        return await forge.open_pull_request(proposal), True
    except Rejected:  # mostly because somebody else has just opened it
        found = await forge.find_pull_request(proposal.branch, proposal.base)
        if found is None:
            raise
        return found, False


async def put_comment(forge: Forge, number: int, marker: str, body: str) -> Literal["added", "updated", "unchanged"]:
    """Post ``body`` (with the marker in it), or put it in the place of the comment of ours that has the marker.

    Raises:
        Transient, Broken, Rejected: as the forge.
    """
    async for comment in forge.comments(number):
        if comment.is_ours and marker in comment.body:
            if comment.body.replace("\r\n", "\n").strip() == body.strip():
                return "unchanged"
            await forge.edit_comment(comment, body)
            return "updated"
    await forge.add_comment(number, body)
    return "added"


def cut(text: str, limit: int) -> str:
    """Return at most ``limit`` characters on one line, with a sign where something is missing."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"
