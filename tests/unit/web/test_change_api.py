"""Changes by HTTP, for callers who are limited to a team: what became of their own, and nothing of others."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

import httpx
from starlette.applications import Starlette

from reconciler.pki.authenticator import Authenticator, Identity
from reconciler.web.change_api import ChangeApi
from reconciler.web.endpoint import routes_of
from reconciler.web.problem import HANDLERS
from tests.unit.changes.plane import AGENT, OPERATOR, ROUTE, ROUTE_PATH, VIEWER, Plane, on_a_remote

MOVED = ROUTE.replace("weight: 3", "weight: 9")
PATH = "/api/v1/changes"


class Door:
    """Lets in whom a test says."""

    def __init__(self, who: Identity) -> None:
        self.who = who

    def authenticate(self, *_: object) -> Identity:
        return self.who


def token(*scopes: str, team: str) -> Identity:
    return Identity("ci", "deployer", frozenset(scopes), "t2", team=team)


def test_whoever_may_change_a_teams_objects_learns_what_became_of_it(tmp_path: Path) -> None:
    """The answer that names a place to ask at is for tokens of a team as well; other teams' changes are not there."""

    async def scenario(plane: Plane) -> None:
        door = Door(token("write", team="shop"))
        api = ChangeApi(changes=plane.changes, authenticator=cast("Authenticator", door), clock=time.time)
        app = Starlette(routes=routes_of(api.endpoints()), exception_handlers=dict(HANDLERS))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://test") as client:
            edit = {"path": ROUTE_PATH, "text": MOVED}
            made = (await client.post(PATH, json={"edits": [edit]})).json()
            door.who = OPERATOR
            edit = {"path": "agents/vps-1.yaml", "text": AGENT.format(name="vps-1", number=9)}
            other = (await client.post(PATH, json={"edits": [edit]})).json()
            for who, own, others in (
                (token("write", team="shop"), 200, 403),
                (token("read", team="shop"), 200, 403),
                (token("operate", team="shop"), 403, 403),
                (token("read", "write", team="rival"), 403, 403),
                (VIEWER, 200, 200),
            ):
                door.who = who
                answers = [await client.get(f"{PATH}/{one}") for one in (made["id"], other["id"], "change-0")]
                wanted = [own, others, 404 if who is VIEWER else 403]
                assert [one.status_code for one in answers] == wanted, (who.scopes, who.team)

    on_a_remote(tmp_path, scenario)
