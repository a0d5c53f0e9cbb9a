"""The API of what is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reconciler.web.traffic_api import TrafficApi
from tests.unit.web.pages.visiting import Visit, visit
from tests.unit.web.test_traffic_views import views

JSON = "application/json"


def test_what_is_published_is_listed_and_explained(tmp_path: Path) -> None:
    """To who may read, page by page; a question that is none is refused."""

    async def scenario(one: Visit) -> None:
        first = (await one.get("/api/v1/traffic?limit=2", Accept=JSON)).json()
        rest = (
            await one.send(
                "GET", "/api/v1/traffic", {**one.asked.bearer("read"), "Accept": JSON}, params={"after": first["next"]}
            )
        ).json()
        assert [len(first["rows"]), len(rest["rows"]), first["total"]] == [2, 3, 5]
        found: dict[str, Any] = (
            await one.get("/api/v1/explain?url=blog.test&header=X-A:%20b&method=HEAD", Accept=JSON)
        ).json()
        assert (found["method"], found["outcome"]) == ("HEAD", "not-found")
        for query in ("", "?url=ftp://x", "?url=blog.test&header=x", "?url=blog.test&method=BREW"):
            assert (await one.get(f"/api/v1/explain{query}", Accept=JSON)).status_code == 400
        assert (await one.send("GET", "/api/v1/explain?url=blog.test", {"Accept": JSON})).status_code == 401
        assert (await one.get("/api/v1/traffic", "plan", Accept=JSON)).status_code == 403

    visit(
        tmp_path,
        lambda one: (TrafficApi(authenticator=one.asked.authenticator, views=views(), clock=one.asked.clock),),
        scenario,
    )
