"""Bitbucket Cloud's REST API 2.0 (https://developer.atlassian.com/cloud/bitbucket/rest/)."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.forges.fake import REPOSITORY, TOKEN, Asked, FakeForge, Handler, Posted, Said

ASKED = re.compile(r'state="OPEN" AND source\.branch\.name="([^"]+)" AND destination\.branch\.name="([^"]+)"')


def error(status: int, message: str, **fields: list[str]) -> Response:
    return JSONResponse(
        {"type": "error", "error": {"message": message, **({"fields": fields} if fields else {})}}, status
    )


class FakeBitbucket(FakeForge):
    kind = "bitbucket"
    prefix = "/2.0"

    def routes(self) -> list[tuple[str, str, Handler]]:
        here = "/repositories/{owner}/{name}"
        return [
            ("GET", "/user", self._user),
            ("POST", f"{here}/commit/{{revision}}/statuses/build", self._set_status),
            ("GET", f"{here}/commit/{{revision}}/statuses", self._statuses),
            ("GET", f"{here}/pullrequests", self._pulls),
            ("POST", f"{here}/pullrequests", self._open),
            ("GET", f"{here}/pullrequests/{{number:int}}/comments", self._comments),
            ("POST", f"{here}/pullrequests/{{number:int}}/comments", self._add),
            ("PUT", f"{here}/pullrequests/{{number:int}}/comments/{{id:int}}", self._edit),
        ]

    def authorised(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {TOKEN}"

    def unauthorised(self) -> Response:
        return error(401, "Token is invalid, expired, or not supported for this endpoint.")

    def missing(self) -> Response:
        return error(404, "Repository not found")

    async def _user(self, _: Request) -> Response:
        if not self.may_ask_who:
            return error(403, "This API is only accessible with the following authentication types: session")
        return JSONResponse({"uuid": "{1}", "type": "user"})

    async def _set_status(self, request: Request) -> Response:
        said, revision = await request.json(), request.path_params["revision"]
        if len(said["key"]) > 40:
            text = f"Ensure this value has at most 40 characters (it has {len(said['key'])})."
            return error(400, f"key: {text}", key=[text])
        if said["state"] not in ("INPROGRESS", "SUCCESSFUL", "FAILED", "STOPPED") or not said["url"]:
            return error(400, "Bad request")
        known = next((one for one in self.statuses if (one.revision, one.name) == (revision, said["key"])), None)
        if known is not None:
            self.statuses.remove(known)
        one = Posted(len(self.statuses) + 1, revision, said["state"], said["description"], said["url"], said["key"])
        self.statuses.append(one)
        return JSONResponse(self._status(one), 200 if known else 201)

    def _status(self, one: Posted) -> dict[str, Any]:
        return {
            "type": "build", "key": one.name, "state": one.state, "description": one.description, "url": one.url,
        }  # fmt: skip

    async def _statuses(self, request: Request) -> Response:
        found = [one for one in self.statuses if one.revision == request.path_params["revision"]]
        return self._paged(request, [self._status(one) for one in found])

    def _paged(self, request: Request, found: list[Any]) -> Response:
        page = int(request.query_params.get("page", "1"))
        most = min(self.page, int(request.query_params.get("pagelen", "10")))
        body: dict[str, Any] = {"values": found[(page - 1) * most : page * most], "pagelen": most, "page": page}
        if page * most < len(found):
            query = urlencode({**request.query_params, "page": page + 1})
            body["next"] = f"https://elsewhere.invalid{request.url.path}?{query}"
        return JSONResponse(body)

    def _request(self, one: Asked) -> dict[str, Any]:
        whose = "stranger/fleet" if one.is_fork else REPOSITORY
        return {
            "id": one.number,
            "links": {"html": {"href": f"https://bitbucket.test/{REPOSITORY}/pull-requests/{one.number}"}},
            "source": {"branch": {"name": one.branch}, "repository": {"full_name": whose}},
            "destination": {"branch": {"name": one.base}, "repository": {"full_name": REPOSITORY}},
        }

    async def _pulls(self, request: Request) -> Response:
        asked = ASKED.fullmatch(request.query_params["q"])
        if asked is None:
            return error(400, "Invalid query")
        found = [one for one in self.pulls if (one.branch, one.base) == asked.groups() and one.is_open]
        return self._paged(request, [self._request(one) for one in found])

    async def _open(self, request: Request) -> Response:
        said = await request.json()
        branch, base = said["source"]["branch"]["name"], said["destination"]["branch"]["name"]
        one = self.ask(branch, base, title=said["title"], body=said["description"])
        return JSONResponse(self._request(one), 201)

    def _comment(self, one: Said) -> dict[str, Any]:
        user = (
            {"type": "app_user", "uuid": "{app}"} if one.author < 0 else {"type": "user", "uuid": f"{{{one.author}}}"}
        )
        return {"id": one.id, "content": {"raw": one.body}, "deleted": False, "user": user}

    async def _comments(self, request: Request) -> Response:
        found = [self._comment(one) for one in self.of(request.path_params["number"])]
        deleted = {"id": 1, "content": {"raw": ""}, "deleted": True, "user": {"uuid": "{1}"}}
        return self._paged(request, [deleted, *found])

    async def _add(self, request: Request) -> Response:
        number = request.path_params["number"]
        if self.pull(number) is None:
            return error(404, "Pull request not found")
        body = (await request.json())["content"]["raw"]
        if len(body) > 32_768:
            return error(400, "content: Ensure this value has at most 32768 characters.")
        return JSONResponse(self._comment(self.say(number, body, 1 if self.may_ask_who else -2)), 201)

    async def _edit(self, request: Request) -> Response:
        found = next((one for one in self.comments if one.id == request.path_params["id"]), None)
        if found is None:
            return error(404, "Comment not found")
        found.body = (await request.json())["content"]["raw"]
        return JSONResponse(self._comment(found))
