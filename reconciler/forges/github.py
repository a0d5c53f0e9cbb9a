"""GitHub, also GitHub Enterprise Server (https://docs.github.com/rest).

A description of more than 140 characters is refused (422), and so is the 1001st status of a context on one commit.
Comments of a pull request are those of an issue. The token of a workflow belongs to no user that it may ask about: what
it wrote is known by its author being a bot.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from reconciler.errors import Broken
from reconciler.forges.connection import Connection
from reconciler.forges.forge import CONTEXT, Comment, CommitStatus, Place, Proposal, PullRequest, State, cut
from reconciler.forges.reading import items, number, text

STATES: Final[Mapping[State, str]] = {
    "pending": "pending",
    "success": "success",
    "failure": "failure",
    "cancelled": "pending",  # it has no word for it; neither green nor red would be true
}
MOST_DESCRIPTION: Final = 140
PAGE: Final = 100


def headers(token: str) -> Mapping[str, str]:
    return {
        "Authorization": f"Bearer {token}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }


class GitHub:
    comment_limit = 65_536
    shows_html = True

    def __init__(self, place: Place, connection: Connection) -> None:
        self.place = place
        self._http = connection
        self._repository = f"/repos/{place.repository}"
        self._me: str | None = None

    async def has_status(self, revision: str, status: CommitStatus) -> bool:
        path = f"{self._repository}/commits/{revision}/statuses"
        for one in items(await self._http.get(path, {"per_page": PAGE})):  # newest first
            if text(one, "context").lower() == CONTEXT:
                return _body(one) == _body(self._status(status))
        return False

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
        owner = self.place.repository.partition("/")[0]
        query = {"state": "open", "head": f"{owner}:{branch}", "base": base, "per_page": PAGE}
        for one in items(await self._http.get(f"{self._repository}/pulls", query)):
            is_own = text(one, "head", "repo", "full_name").lower() == self.place.repository.lower()
            if is_own and text(one, "head", "ref") == branch and text(one, "base", "ref") == base:
                return _pull_request(one)
        return None

    async def open_pull_request(self, proposal: Proposal) -> PullRequest:
        said = {"title": proposal.title, "body": proposal.body, "head": proposal.branch, "base": proposal.base}
        return _pull_request(await self._http.send("POST", f"{self._repository}/pulls", said))

    async def comments(self, number: int) -> AsyncIterator[Comment]:
        me = await self._who()
        async for one in self._http.pages(f"{self._repository}/issues/{number}/comments", {"per_page": PAGE}):
            is_ours = text(one, "user", "login") == me if me else text(one, "user", "type") == "Bot"
            path = f"{self._repository}/issues/comments/{_id(one)}"
            yield Comment(path, text(one, "body"), is_ours)

    async def _who(self) -> str:
        if self._me is None:
            try:
                self._me = text(await self._http.get("/user"), "login")
            except Broken:  # 403, "Resource not accessible by integration"
                self._me = ""
        return self._me

    async def add_comment(self, number: int, body: str) -> None:
        await self._http.send("POST", f"{self._repository}/issues/{number}/comments", {"body": body})

    async def edit_comment(self, comment: Comment, body: str) -> None:
        await self._http.send("PATCH", comment.path, {"body": body})

    async def close(self) -> None:
        await self._http.close()


def _body(one: Mapping[str, Any]) -> tuple[str, str, str]:
    return text(one, "state"), text(one, "description"), text(one, "target_url")


def _id(one: Any) -> int:  # noqa: ANN401 - JSON
    return number(one, "id")


def _pull_request(one: Any) -> PullRequest:  # noqa: ANN401 - JSON
    return PullRequest(number(one, "number"), text(one, "html_url"))
