"""GitHub's REST API (https://docs.github.com/rest): statuses, pull requests, comments, rate limits."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.forges.fake import REPOSITORY, TOKEN, Asked, FakeForge, Handler, Posted, Said


def invalid(resource: str, field: str, message: str) -> Response:
    error = {"resource": resource, "code": "custom", "field": field, "message": message}
    return JSONResponse({"message": "Validation Failed", "errors": [error], "status": "422"}, 422)


def secondary_limit() -> Response:
    """Without Retry-After, as it mostly comes."""
    return JSONResponse({"message": "You have exceeded a secondary rate limit. Please wait a few minutes."}, 403)


class FakeGitHub(FakeForge):
    kind = "github"
    prefix = ""
    most_statuses = 1000

    def routes(self) -> list[tuple[str, str, Handler]]:
        here = "/repos/{owner}/{name}"
        return [
            ("GET", "/user", self._user),
            ("POST", f"{here}/statuses/{{revision}}", self._set_status),
            ("GET", f"{here}/commits/{{revision}}/statuses", self._statuses),
            ("GET", f"{here}/pulls", self._pulls),
            ("POST", f"{here}/pulls", self._open),
            ("GET", f"{here}/issues/{{number:int}}/comments", self._comments),
            ("POST", f"{here}/issues/{{number:int}}/comments", self._add),
            ("PATCH", f"{here}/issues/comments/{{id:int}}", self._edit),
        ]

    def authorised(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {TOKEN}"

    def unauthorised(self) -> Response:
        return JSONResponse({"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest"}, 401)

    def missing(self) -> Response:
        return JSONResponse({"message": "Not Found", "documentation_url": "https://docs.github.com/rest"}, 404)

    async def _user(self, _: Request) -> Response:
        if not self.may_ask_who:
            return JSONResponse({"message": "Resource not accessible by integration"}, 403)
        return JSONResponse({"login": "user-1", "id": 1})

    async def _set_status(self, request: Request) -> Response:
        said, revision = await request.json(), request.path_params["revision"]
        if said["state"] not in ("error", "failure", "pending", "success"):
            return invalid("Status", "state", "state is not included in the list")
        if len(said.get("description") or "") > 140:
            return invalid("Status", "description", "description is too long (maximum is 140 characters)")
        if sum(one.revision == revision for one in self.statuses) >= self.most_statuses:
            return invalid("Status", "context", "This SHA and context has reached the maximum number of statuses.")
        one = Posted(
            len(self.statuses) + 1, revision, said["state"], said["description"], said["target_url"], said["context"]
        )
        self.statuses.append(one)
        return JSONResponse(self._status(one), 201)

    def _status(self, one: Posted) -> dict[str, Any]:
        return {
            "id": one.id, "state": one.state, "description": one.description, "target_url": one.url,
            "context": one.name,
        }  # fmt: skip

    async def _statuses(self, request: Request) -> Response:
        found = [one for one in self.statuses if one.revision == request.path_params["revision"]]
        return JSONResponse([self._status(one) for one in reversed(found)])

    def _request(self, one: Asked) -> dict[str, Any]:
        whose = "stranger/fleet" if one.is_fork else REPOSITORY
        return {
            "number": one.number,
            "html_url": f"https://github.test/{REPOSITORY}/pull/{one.number}",
            "head": {"ref": one.branch, "repo": {"full_name": whose}},
            "base": {"ref": one.base, "repo": {"full_name": REPOSITORY}},
        }

    async def _pulls(self, request: Request) -> Response:
        assert request.query_params["state"] == "open"
        owner, _, branch = request.query_params["head"].partition(":")
        found = [
            one
            for one in self.pulls
            if one.branch == branch and one.is_open and owner == ("stranger" if one.is_fork else "platform")
        ]
        return JSONResponse([self._request(one) for one in found])

    async def _open(self, request: Request) -> Response:
        said = await request.json()
        if self.same(said["head"], said["base"]) is not None:
            return invalid("PullRequest", "", f"A pull request already exists for platform:{said['head']}.")
        one = self.ask(said["head"], said["base"], title=said["title"], body=said["body"])
        return JSONResponse(self._request(one), 201)

    def _comment(self, one: Said) -> dict[str, Any]:
        bot = {"login": "github-actions[bot]", "type": "Bot", "id": 41898282}
        person = {"login": f"user-{one.author}", "type": "User", "id": one.author}
        return {"id": one.id, "body": one.body, "user": bot if one.author < 0 else person}

    async def _comments(self, request: Request) -> Response:
        found = [self._comment(one) for one in self.of(request.path_params["number"])]
        return self.linked(request, found, "per_page")

    async def _add(self, request: Request) -> Response:
        body, number = (await request.json())["body"], request.path_params["number"]
        if self.pull(number) is None:
            return self.missing()
        if len(body) > 65_536:
            return invalid("IssueComment", "body", "body is too long (maximum is 65536 characters)")
        return JSONResponse(self._comment(self.say(number, body, 1 if self.may_ask_who else -2)), 201)

    async def _edit(self, request: Request) -> Response:
        found = next((one for one in self.comments if one.id == request.path_params["id"]), None)
        if found is None:
            return self.missing()
        found.body = (await request.json())["body"]
        return JSONResponse(self._comment(found))
