"""Gitea and Forgejo (``/api/swagger`` of each of them).

Much is as at GitHub, but: a status is read back as ``status``; the filter ``head`` of pull requests means another thing
in each version, so that we look through the open ones; comments come without pages. What their Actions write belongs to
a user with a negative id.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from reconciler.errors import Broken
from reconciler.forges.connection import Connection
from reconciler.forges.forge import CONTEXT, Comment, CommitStatus, Place, Proposal, PullRequest, State, cut
from reconciler.forges.reading import field, items, number, text

STATES: Final[Mapping[State, str]] = {
    "pending": "pending",
    "success": "success",
    "failure": "failure",
    "cancelled": "warning",
}
MOST_DESCRIPTION: Final = 255
PAGE: Final = 50
"""Also the most that they give, where nothing else is set."""


def headers(token: str) -> Mapping[str, str]:
    return {"Authorization": f"token {token}"}


class Gitea:
    comment_limit = 65_536
    shows_html = True

    def __init__(self, place: Place, connection: Connection) -> None:
        self.place = place
        self._http = connection
        self._repository = f"/repos/{place.repository}"
        self._me: int | None = None

    async def has_status(self, revision: str, status: CommitStatus) -> bool:
        query = {"sort": "recentupdate", "limit": PAGE}
        found = items(await self._http.get(f"{self._repository}/commits/{revision}/statuses", query))
        ours = [one for one in found if text(one, "context") == CONTEXT]
        newest = max(ours, key=lambda one: number(one, "id"), default=None)
        wanted = self._status(status)
        return newest is not None and (
            text(newest, "status") == wanted["state"]
            and text(newest, "description") == wanted["description"]
            and text(newest, "target_url") == wanted["target_url"]
        )

    async def set_status(self, revision: str, status: CommitStatus) -> None:
        await self._http.send("POST", f"{self._repository}/statuses/{revision}", self._status(status))

    def _status(self, status: CommitStatus) -> dict[str, str]:
        return {
            "state": STATES[status.state],
            "context": CONTEXT,
            "description": cut(status.description, MOST_DESCRIPTION),
            "target_url": status.url,
        }

    async def find_pull_request(self, branch: str, base: str) -> PullRequest | None:
        async for one in self._http.pages(f"{self._repository}/pulls", {"state": "open", "limit": PAGE}):
            is_own = text(one, "head", "repo", "full_name").lower() == self.place.repository.lower()
            if is_own and text(one, "head", "ref") == branch and text(one, "base", "ref") == base:
                return _pull_request(one)
        return None

    async def open_pull_request(self, proposal: Proposal) -> PullRequest:
        said = {"title": proposal.title, "body": proposal.body, "head": proposal.branch, "base": proposal.base}
        return _pull_request(await self._http.send("POST", f"{self._repository}/pulls", said))

    async def comments(self, number: int) -> AsyncIterator[Comment]:
        me = await self._who()
        for one in items(await self._http.get(f"{self._repository}/issues/{number}/comments")):
            author = field(one, "user", "id")
            is_ours = isinstance(author, int) and (author == me if me else author < 0)
            path = f"{self._repository}/issues/comments/{_id(one)}"
            yield Comment(path, text(one, "body"), is_ours)

    async def _who(self) -> int:
        """Return the id of the token's user, 0 where the token may not ask."""
        if self._me is None:
            try:
                self._me = number(await self._http.get("/user"), "id")
            except Broken:
                self._me = 0
        return self._me

    async def add_comment(self, number: int, body: str) -> None:
        await self._http.send("POST", f"{self._repository}/issues/{number}/comments", {"body": body})

    async def edit_comment(self, comment: Comment, body: str) -> None:
        await self._http.send("PATCH", comment.path, {"body": body})

    async def close(self) -> None:
        await self._http.close()


def _id(one: Any) -> int:  # noqa: ANN401 - JSON
    return number(one, "id")


def _pull_request(one: Any) -> PullRequest:  # noqa: ANN401 - JSON
    return PullRequest(number(one, "number"), text(one, "html_url"))
