"""The API for people: every operation has a page with what can be sent, what comes back, and a command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from reconciler.web.openapi import openapi
from reconciler.web.pages.api_pages import ApiPages, curl_of, fields, link_of, operations
from tests.unit.web.pages.visiting import Visit, visit


def document_of(one: Visit) -> dict[str, Any]:
    return openapi((*one.asked.api.endpoints(), *one.asked.stream.endpoints()), version="1.2.3")


def parts(one: Visit) -> list[ApiPages]:
    pages = ApiPages(site=one.site)
    content = json.dumps(document_of(one)).encode()
    pages.document = lambda: content
    return [pages]


def test_each_operation_has_a_page(tmp_path: Path) -> None:
    """Which the list leads to; one that there is not is 404."""

    async def scenario(one: Visit) -> None:
        index = await one.get("/api", "read")
        links = re.findall(r'href="(/api\?operation=[a-z_]+)"', index.text)
        assert len(links) == len(list(operations(document_of(one))))
        assert "script" not in index.text.partition("<main")[2]
        for link in links:
            answer = await one.get(link, "read")
            assert answer.status_code == 200
            assert "curl --cacert ca.pem" in answer.text
        assert (await one.get("/api?operation=nothing", "read")).status_code == 404

    visit(tmp_path, parts, scenario)


def test_an_operation_says_how_it_is_used(tmp_path: Path) -> None:
    """Link and command have the examples of the parameters; members have their place, type and meaning."""

    async def scenario(one: Visit) -> None:
        document = document_of(one)
        rows = {each.id: each for each in operations(document)}
        assert link_of(rows["plan"]) == "/api/v1/revisions/newest/plan"
        assert link_of(rows["approve"]) == ""
        assert "--request POST" in curl_of(rows["approve"], "https://plane.test")
        assert "limit=20" in curl_of(rows["agents"], "https://plane.test")
        members = {each.name: each for each in fields(document, {"$ref": "#/components/schemas/AgentList"})}
        assert members["agents[].conditions[].status"].type == '"True" | "False" | "Unknown"'
        assert members["agents"].is_required

    visit(tmp_path, parts, scenario)
