"""GitLab's REST API (https://docs.gitlab.com/api/): commit statuses with their transitions, merge requests, notes."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.forges.fake import REPOSITORY, TOKEN, Asked, FakeForge, Handler, Posted, Said

EVENTS = {"pending": "enqueue", "running": "run", "success": "succeed", "failed": "drop", "canceled": "cancel"}
OPEN = ("pending", "running")


class FakeGitLab(FakeForge):
    kind = "gitlab"
    prefix = "/api/v4"

    def routes(self) -> list[tuple[str, str, Handler]]:
        here = "/projects/{owner}/{name}"  # %2F is a slash by the time that ASGI has it
        return [
            ("GET", "/user", self._user),
            ("POST", f"{here}/statuses/{{revision}}", self._set_status),
            ("GET", f"{here}/repository/commits/{{revision}}/statuses", self._statuses),
            ("GET", f"{here}/merge_requests", self._merge_requests),
            ("POST", f"{here}/merge_requests", self._open),
            ("GET", f"{here}/merge_requests/{{number:int}}/notes", self._notes),
            ("POST", f"{here}/merge_requests/{{number:int}}/notes", self._add),
            ("PUT", f"{here}/merge_requests/{{number:int}}/notes/{{id:int}}", self._edit),
        ]

    def authorised(self, request: Request) -> bool:
        return request.headers.get("private-token") == TOKEN

    def unauthorised(self) -> Response:
        return JSONResponse({"message": "401 Unauthorized"}, 401)

    def missing(self) -> Response:
        return JSONResponse({"message": "404 Project Not Found"}, 404)

    def is_here(self, request: Request) -> bool:
        is_encoded = b"%2F" in request.scope["raw_path"] or "owner" not in request.path_params
        return is_encoded and super().is_here(request)

    async def _user(self, _: Request) -> Response:
        return JSONResponse({"username": "user-1", "id": 1})

    async def _set_status(self, request: Request) -> Response:
        """A status that is not done is changed, one that is done gets a newer one beside it."""
        said, revision = await request.json(), request.path_params["revision"]
        state, name = said["state"], said.get("name") or said.get("context") or "default"
        if state not in EVENTS:
            return JSONResponse({"error": "state does not have a valid value"}, 400)
        found = [one for one in self.statuses if (one.revision, one.name) == (revision, name)]
        if found and found[-1].state in OPEN:
            if found[-1].state == state:
                event = EVENTS[state]
                why = f'Status cannot transition via "{event}"'
                text = f"Cannot transition status via :{event} from :{state} (Reason(s): {why})"
                return JSONResponse({"message": text}, 400)
            found[-1].state, found[-1].description = state, said["description"]
            return JSONResponse(self._status(found[-1]), 201)
        one = Posted(len(self.statuses) + 1, revision, state, said["description"], said["target_url"], name)
        self.statuses.append(one)
        return JSONResponse(self._status(one), 201)

    def _status(self, one: Posted) -> dict[str, Any]:
        return {
            "id": one.id, "sha": one.revision, "status": one.state, "description": one.description,
            "target_url": one.url, "name": one.name,
        }  # fmt: skip

    async def _statuses(self, request: Request) -> Response:
        found = [one for one in self.statuses if one.revision == request.path_params["revision"]]
        return JSONResponse([self._status(one) for one in found if one.name == request.query_params["name"]])

    def _request(self, one: Asked) -> dict[str, Any]:
        return {
            "iid": one.number,
            "id": one.number + 1000,
            "web_url": f"https://gitlab.test/{REPOSITORY}/-/merge_requests/{one.number}",
            "source_branch": one.branch,
            "target_branch": one.base,
            "source_project_id": 8 if one.is_fork else 7,
            "target_project_id": 7,
        }

    async def _merge_requests(self, request: Request) -> Response:
        query = request.query_params
        assert query["state"] == "opened"
        wanted = query["source_branch"], query["target_branch"]
        found = [self._request(one) for one in self.pulls if (one.branch, one.base) == wanted and one.is_open]
        return JSONResponse(found)

    async def _open(self, request: Request) -> Response:
        said = await request.json()
        if (found := self.same(said["source_branch"], said["target_branch"])) is not None:
            text = f"Another open merge request already exists for this source branch: !{found.number}"
            return JSONResponse({"message": [text]}, 409)
        one = self.ask(said["source_branch"], said["target_branch"], title=said["title"], body=said["description"])
        return JSONResponse(self._request(one), 201)

    def _note(self, one: Said) -> dict[str, Any]:
        return {"id": one.id, "body": one.body, "system": False, "author": {"id": one.author}}

    async def _notes(self, request: Request) -> Response:
        system = {"id": 1, "body": "added 1 commit", "system": True, "author": {"id": 1}}
        found = [system, *(self._note(one) for one in self.of(request.path_params["number"]))]
        return self.linked(request, found, "per_page")

    async def _add(self, request: Request) -> Response:
        number = request.path_params["number"]
        if self.pull(number) is None:
            return JSONResponse({"message": "404 Not found"}, 404)
        return JSONResponse(self._note(self.say(number, (await request.json())["body"], 1)), 201)

    async def _edit(self, request: Request) -> Response:
        found = next((one for one in self.comments if one.id == request.path_params["id"]), None)
        if found is None:
            return JSONResponse({"message": "404 Not found"}, 404)
        if found.author != 1:
            return JSONResponse({"message": "403 Forbidden"}, 403)
        found.body = (await request.json())["body"]
        return JSONResponse(self._note(found))
