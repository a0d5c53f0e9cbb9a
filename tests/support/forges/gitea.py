"""Gitea's and Forgejo's API (their ``/api/swagger``): much as GitHub's, and not quite."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.forges.fake import REPOSITORY, TOKEN, Asked, FakeForge, Handler, Posted, Said


class FakeGitea(FakeForge):
    kind = "gitea"
    prefix = "/api/v1"

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
        return request.headers.get("authorization") == f"token {TOKEN}"

    def unauthorised(self) -> Response:
        return JSONResponse({"message": "invalid username, password or token", "url": "/api/swagger"}, 401)

    def missing(self) -> Response:
        return JSONResponse({"errors": [], "message": "GetRepositoryByName", "url": "/api/swagger"}, 404)

    async def _user(self, _: Request) -> Response:
        if not self.may_ask_who:
            text = "token does not have at least one of required scope(s): [read:user]"
            return JSONResponse({"message": text, "url": "/api/swagger"}, 403)
        return JSONResponse({"login": "user-1", "id": 1})

    async def _set_status(self, request: Request) -> Response:
        said = await request.json()
        if said["state"] not in ("pending", "success", "error", "failure", "warning"):
            return JSONResponse({"message": "[State]: unknown", "url": "/api/swagger"}, 422)
        one = Posted(
            len(self.statuses) + 1, request.path_params["revision"], said["state"], said["description"],
            said["target_url"], said["context"],
        )  # fmt: skip
        self.statuses.append(one)
        return JSONResponse(self._status(one), 201)

    def _status(self, one: Posted) -> dict[str, Any]:
        return {
            "id": one.id, "status": one.state, "description": one.description, "target_url": one.url,
            "context": one.name,
        }  # fmt: skip

    async def _statuses(self, request: Request) -> Response:
        found = [one for one in self.statuses if one.revision == request.path_params["revision"]]
        return JSONResponse([self._status(one) for one in found])

    def _request(self, one: Asked) -> dict[str, Any]:
        whose = "stranger/fleet" if one.is_fork else REPOSITORY
        return {
            "number": one.number,
            "html_url": f"https://gitea.test/{REPOSITORY}/pulls/{one.number}",
            "head": {"ref": one.branch, "label": one.branch, "repo": {"full_name": whose}},
            "base": {"ref": one.base, "repo": {"full_name": REPOSITORY}},
        }

    async def _pulls(self, request: Request) -> Response:
        """``head`` is not looked at, as in the versions that do not know it."""
        found = [self._request(one) for one in self.pulls if one.is_open]
        return self.linked(request, found, "limit")

    async def _open(self, request: Request) -> Response:
        said = await request.json()
        if self.same(said["head"], said["base"]) is not None:
            text = f"pull request already exists for these targets [id: 1, head_branch: {said['head']}]"
            return JSONResponse({"message": text, "url": "/api/swagger"}, 409)
        one = self.ask(said["head"], said["base"], title=said["title"], body=said["body"])
        return JSONResponse(self._request(one), 201)

    def _comment(self, one: Said) -> dict[str, Any]:
        login = "gitea-actions" if one.author < 0 else f"user-{one.author}"
        return {"id": one.id, "body": one.body, "user": {"login": login, "id": one.author}}

    async def _comments(self, request: Request) -> Response:
        """All at once: this list has no pages."""
        return JSONResponse([self._comment(one) for one in self.of(request.path_params["number"])])

    async def _add(self, request: Request) -> Response:
        number = request.path_params["number"]
        if self.pull(number) is None:
            return self.missing()
        body = (await request.json())["body"]
        return JSONResponse(self._comment(self.say(number, body, 1 if self.may_ask_who else -2)), 201)

    async def _edit(self, request: Request) -> Response:
        found = next((one for one in self.comments if one.id == request.path_params["id"]), None)
        if found is None:
            return self.missing()
        found.body = (await request.json())["body"]
        return JSONResponse(self._comment(found))
