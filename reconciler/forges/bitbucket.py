"""Bitbucket Cloud (https://developer.atlassian.com/cloud/bitbucket/rest/).

A status has a key of at most 40 characters and a new one of that key takes the place of the former. Lists come with the
URL of their next page in the body. Comments are Markdown without HTML.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from reconciler.errors import Broken
from reconciler.forges.answers import query_of
from reconciler.forges.connection import MOST_PAGES, Connection
from reconciler.forges.forge import CONTEXT, Comment, CommitStatus, Place, Proposal, PullRequest, State, cut
from reconciler.forges.reading import field, items, number, text

STATES: Final[Mapping[State, str]] = {
    "pending": "INPROGRESS",
    "success": "SUCCESSFUL",
    "failure": "FAILED",
    "cancelled": "STOPPED",
}
MOST_DESCRIPTION: Final = 255
PAGE: Final = 50
NAME: Final = "CloudLunacy"


class Bitbucket:
    comment_limit = 32_768
    shows_html = False

    def __init__(self, place: Place, connection: Connection) -> None:
        self.place = place
        self._http = connection
        self._repository = f"/repositories/{place.repository}"
        self._me: str | None = None

    async def has_status(self, revision: str, status: CommitStatus) -> bool:
        wanted = self._status(status)
        path, query = f"{self._repository}/commit/{revision}/statuses", {"pagelen": PAGE}
        async for one in self._pages(path, query):
            if text(one, "key") == CONTEXT:
                return all(text(one, name) == wanted[name] for name in ("state", "description", "url"))
        return False

    async def set_status(self, revision: str, status: CommitStatus) -> None:
        await self._http.send("POST", f"{self._repository}/commit/{revision}/statuses/build", self._status(status))

    def _status(self, status: CommitStatus) -> dict[str, str]:
        return {
            "key": CONTEXT,
            "name": NAME,
            "state": STATES[status.state],
            "description": cut(status.description, MOST_DESCRIPTION),
            "url": status.url,
        }

    async def find_pull_request(self, branch: str, base: str) -> PullRequest | None:
        asked = f'state="OPEN" AND source.branch.name={_quoted(branch)} AND destination.branch.name={_quoted(base)}'
        async for one in self._pages(f"{self._repository}/pullrequests", {"q": asked, "pagelen": PAGE}):
            is_own = text(one, "source", "repository", "full_name").lower() == self.place.repository.lower()
            names = text(one, "source", "branch", "name"), text(one, "destination", "branch", "name")
            if is_own and names == (branch, base):
                return _pull_request(one)
        return None

    async def open_pull_request(self, proposal: Proposal) -> PullRequest:
        said = {
            "title": proposal.title,
            "description": proposal.body,
            "source": {"branch": {"name": proposal.branch}},
            "destination": {"branch": {"name": proposal.base}},
            "close_source_branch": True,
        }
        return _pull_request(await self._http.send("POST", f"{self._repository}/pullrequests", said))

    async def comments(self, number: int) -> AsyncIterator[Comment]:
        me = await self._who()
        async for one in self._pages(f"{self._repository}/pullrequests/{number}/comments", {"pagelen": PAGE}):
            is_ours = text(one, "user", "uuid") == me if me else text(one, "user", "type") not in ("", "user")
            if field(one, "deleted") is not True and field(one, "inline") is None:
                path = f"{self._repository}/pullrequests/{number}/comments/{_id(one)}"
                yield Comment(path, text(one, "content", "raw"), is_ours)

    async def _who(self) -> str:
        """Return whom the token belongs to, "" where it belongs to the repository and may not ask."""
        if self._me is None:
            try:
                self._me = text(await self._http.get("/user"), "uuid")
            except Broken:
                self._me = ""
        return self._me

    async def add_comment(self, number: int, body: str) -> None:
        path = f"{self._repository}/pullrequests/{number}/comments"
        await self._http.send("POST", path, {"content": {"raw": body}})

    async def edit_comment(self, comment: Comment, body: str) -> None:
        await self._http.send("PUT", comment.path, {"content": {"raw": body}})

    async def close(self) -> None:
        await self._http.close()

    async def _pages(self, path: str, query: Mapping[str, Any]) -> AsyncIterator[Any]:
        following: Mapping[str, Any] | None = query
        for _ in range(MOST_PAGES):
            answer = await self._http.get(path, following)
            for one in items(field(answer, "values")):
                yield one
            following = query_of(text(answer, "next"))
            if following is None:
                return


def _quoted(name: str) -> str:
    """A text of Bitbucket's query language."""
    return json.dumps(name, ensure_ascii=False)


def _id(one: Any) -> int:  # noqa: ANN401 - JSON
    return number(one, "id")


def _pull_request(one: Any) -> PullRequest:  # noqa: ANN401 - JSON
    return PullRequest(number(one, "id"), text(one, "links", "html", "href"))
