"""GitLab (https://docs.gitlab.com/api/): merge requests, notes, and the status of a commit.

A status goes through GitLab's own states: a change to the state that it already has is refused ("Cannot transition
status", 400). Then the state is right and only its words are older, which is good enough. A job's own token
(``CI_JOB_TOKEN``) may write none of this.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from reconciler.errors import Rejected
from reconciler.forges.connection import Connection
from reconciler.forges.forge import CONTEXT, Comment, CommitStatus, Place, Proposal, PullRequest, State, cut
from reconciler.forges.reading import field, items, number, text

STATES: Final[Mapping[State, str]] = {
    "pending": "pending",
    "success": "success",
    "failure": "failed",
    "cancelled": "canceled",
}
MOST_DESCRIPTION: Final = 255
PAGE: Final = 100
_TRANSITION: Final = "Cannot transition status"


def headers(token: str) -> Mapping[str, str]:
    return {"PRIVATE-TOKEN": token}


class GitLab:
    comment_limit = 1_000_000
    shows_html = True

    def __init__(self, place: Place, connection: Connection) -> None:
        self.place = place
        self._http = connection
        self._project = f"/projects/{quote(place.repository, safe='')}"
        self._me: int | None = None

    async def has_status(self, revision: str, status: CommitStatus) -> bool:
        newest = await self._newest(revision)
        wanted = self._status(status)
        return newest is not None and (
            text(newest, "status") == wanted["state"]
            and text(newest, "description") == wanted["description"]
            and text(newest, "target_url") == wanted["target_url"]
        )

    async def _newest(self, revision: str) -> Any | None:  # noqa: ANN401 - JSON
        query = {"name": CONTEXT, "per_page": PAGE}
        found = items(await self._http.get(f"{self._project}/repository/commits/{revision}/statuses", query))
        ours = [one for one in found if text(one, "name") == CONTEXT]
        return max(ours, key=lambda one: number(one, "id"), default=None)

    async def set_status(self, revision: str, status: CommitStatus) -> None:
        wanted = self._status(status)
        try:
            await self._http.send("POST", f"{self._project}/statuses/{revision}", wanted)
        except Rejected as error:
            if _TRANSITION not in error.message:
                raise
            newest = await self._newest(revision)
            if newest is None or text(newest, "status") != wanted["state"]:
                raise

    def _status(self, status: CommitStatus) -> dict[str, str]:
        return {
            "state": STATES[status.state],
            "name": CONTEXT,
            "description": cut(status.description, MOST_DESCRIPTION),
            "target_url": status.url,
        }

    async def find_pull_request(self, branch: str, base: str) -> PullRequest | None:
        query = {"state": "opened", "source_branch": branch, "target_branch": base, "per_page": PAGE}
        for one in items(await self._http.get(f"{self._project}/merge_requests", query)):
            is_own = field(one, "source_project_id") == field(one, "target_project_id")
            if is_own and text(one, "source_branch") == branch and text(one, "target_branch") == base:
                return _pull_request(one)
        return None

    async def open_pull_request(self, proposal: Proposal) -> PullRequest:
        said = {
            "source_branch": proposal.branch,
            "target_branch": proposal.base,
            "title": proposal.title,
            "description": proposal.body,
            "remove_source_branch": True,
        }
        return _pull_request(await self._http.send("POST", f"{self._project}/merge_requests", said))

    async def comments(self, number: int) -> AsyncIterator[Comment]:
        if self._me is None:
            self._me = _id(await self._http.get("/user"))
        query = {"sort": "asc", "order_by": "created_at", "per_page": PAGE}
        async for one in self._http.pages(f"{self._project}/merge_requests/{number}/notes", query):
            if field(one, "system") is not True:
                path = f"{self._project}/merge_requests/{number}/notes/{_id(one)}"
                yield Comment(path, text(one, "body"), field(one, "author", "id") == self._me)

    async def add_comment(self, number: int, body: str) -> None:
        await self._http.send("POST", f"{self._project}/merge_requests/{number}/notes", {"body": body})

    async def edit_comment(self, comment: Comment, body: str) -> None:
        await self._http.send("PUT", comment.path, {"body": body})

    async def close(self) -> None:
        await self._http.close()


def _id(one: Any) -> int:  # noqa: ANN401 - JSON
    return number(one, "id")


def _pull_request(one: Any) -> PullRequest:  # noqa: ANN401 - JSON
    return PullRequest(number(one, "iid"), text(one, "web_url"))
