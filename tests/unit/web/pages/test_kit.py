"""The site: who is let in, what every page says about itself, how forms are read, and how pages say no."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from reconciler.errors import Transient
from reconciler.web.endpoint import Endpoint
from reconciler.web.pages.headers import PRIVATE
from tests.support.tokens import ISSUER
from tests.unit.web.pages.visiting import Visit, text_of, visit

ODD = "<script>alert(1)</script>\u202e\" onload='x' {{ 7*7 }} javascript:alert(1)"


class Pages:
    """A page that says no in the way it is told, and a form that is answered by a notice."""

    def __init__(self, one: Visit) -> None:
        self._site = one.site
        self.forms: list[Any] = []

    def endpoints(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint("GET", "/page", "A page", self.page, page=True),
            Endpoint("POST", "/form", "A form", self.form, page=True),
            Endpoint("GET", "/away", "Something is away", self.away, page=True),
            Endpoint("GET", "/bug", "A bug", self.bug, page=True),
        )

    async def page(self, request: Request) -> Response:
        identity = self._site.caller(request, "operate")
        refused = SimpleNamespace(code=ODD, status=418, message=ODD, hint=ODD)
        return await self._site.render(request, identity, "error.html.j2", refused=refused)

    async def form(self, request: Request) -> Response:
        self._site.caller(request)
        self.forms.append(await self._site.form(request))
        return self._site.redirect("/page", f"It is done: {ODD}")

    async def away(self, _: Request) -> Response:
        raise Transient("the store is away", reason="Away", retry_after=3.0)

    async def bug(self, _: Request) -> Response:
        raise ValueError(ODD)


def run(data: Path, scenario: Any) -> None:
    made: list[Pages] = []

    def parts(one: Visit) -> list[Pages]:
        made.append(Pages(one))
        return made

    async def main(one: Visit) -> None:
        await scenario(one, made[0])

    visit(data, parts, main)


def secured(answer: httpx.Response) -> bool:
    return all(answer.headers[name] == value for name, value in PRIVATE.items())


def test_whoever_is_not_logged_in_is_led_there_and_back(tmp_path: Path) -> None:
    """A page is answered by the way to log in; a form by a page that says so, for it cannot be sent again unseen."""

    async def scenario(one: Visit, _: Pages) -> None:
        answer = await one.stranger("/page?a=1&b=%2F")
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/page%3Fa%3D1%26b%3D%252F")
        assert secured(answer)
        sent = await one.stranger("/form", "POST", data={"a": "1"})
        assert sent.status_code == 401
        assert 'href="/login"' in sent.text

    run(tmp_path, scenario)


def test_a_page_says_no_as_a_page(tmp_path: Path) -> None:
    """What is missing, forbidden, away or broken is told in words, with the headers that every page has."""

    async def scenario(one: Visit, _: Pages) -> None:
        for path, status, words in (
            ("/nowhere", 404, "Not found"),
            ("/away", 503, "Something that this needs is away."),
            ("/bug", 500, "The control plane failed to answer; its log says where."),
            ("/page", 403, "This needs the scope &#34;operate&#34;."),
        ):
            answer = await one.get(path, "read")
            assert (answer.status_code, secured(answer)) == (status, True), path
            assert words in text_of(answer)
            assert "alert" not in answer.text
        assert (await one.get("/away", "read")).headers["retry-after"] == "3"

    run(tmp_path, scenario)


def test_programs_get_problem_details(tmp_path: Path) -> None:
    """By path, and where no page is asked for."""

    async def scenario(one: Visit, _: Pages) -> None:
        for path, headers in (("/api/v1/nothing", {}), ("/nothing", {"Accept": "*/*"})):
            answer = await one.get(path, **headers)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == 404

    run(tmp_path, scenario)


def test_text_from_outside_is_text(tmp_path: Path) -> None:
    """Markup is escaped, templates in it are not run, and marks that turn the direction of writing are shown."""

    async def scenario(one: Visit, _: Pages) -> None:
        answer = await one.get("/page")
        assert answer.status_code == 200
        assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e&#34; onload=&#39;x&#39; {{ 7*7 }}" in answer.text
        assert "<script>" not in answer.text
        assert "\u202e" not in answer.text

    run(tmp_path, scenario)


def test_a_form_is_read_and_answered_by_a_notice_that_is_shown_once(tmp_path: Path) -> None:
    """The notice goes by a cookie of this host alone; nobody can put words there by a link."""

    async def scenario(one: Visit, pages: Pages) -> None:
        sent = await one.post("/form", {"name": "ann", "text": "a\r\nb"})
        assert (sent.status_code, sent.headers["location"]) == (303, "/page")
        cookie = sent.headers["set-cookie"]
        assert cookie.startswith("__Host-notice=It%20is%20done")
        assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert (pages.forms[0], pages.forms[0].every("name")) == ({"name": "ann", "text": "a\nb"}, ("ann",))
        shown = await one.get("/page", Cookie=cookie.partition(";")[0])
        assert '<p class="notice" role="status">It is done: &lt;script&gt;' in shown.text
        assert "Max-Age=0" in shown.headers["set-cookie"]

    run(tmp_path, scenario)


@pytest.mark.parametrize("origin", ["https://evil.test", "null", f"{ISSUER}.evil.test"])
def test_a_form_of_another_site_is_refused(tmp_path: Path, origin: str) -> None:
    """Whatever credentials came with it."""

    async def scenario(one: Visit, pages: Pages) -> None:
        answer = await one.post("/form", {"a": "1"}, origin=origin)
        assert (answer.status_code, pages.forms) == (403, [])
        assert "Foreign origin" in text_of(answer)

    run(tmp_path, scenario)


def test_what_is_no_form_is_refused(tmp_path: Path) -> None:
    """Another type, too many fields, and bytes that no browser sends."""

    async def scenario(one: Visit, pages: Pages) -> None:
        who = one.asked.bearer("read") | {"Origin": ISSUER}
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert (await one.send("POST", "/form", who, json={})).status_code == 415
        assert (await one.send("POST", "/form", who | form, content=b"&".join([b"a=1"] * 500))).status_code == 400
        assert (await one.send("POST", "/form", who | form, content=b"a=\xff")).status_code == 400
        assert pages.forms == []

    run(tmp_path, scenario)


def test_static_files_are_kept_for_ever_and_only_of_this_version(tmp_path: Path) -> None:
    """The digest over all of them is in the path; another one's is not here."""

    async def scenario(one: Visit, _: Pages) -> None:
        page = await one.get("/nowhere")
        for name, kind in (("app.css", "text/css; charset=utf-8"), ("live.js", "text/javascript; charset=utf-8")):
            url = one.site.statics.url(name)
            assert f'"{url}"' in page.text
            answer = await one.stranger(url)
            assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert answer.headers["x-content-type-options"] == "nosniff"
        for path in ("/static/0000000000000000/app.css", f"/static/{one.site.statics.digest}/..%2Fbase.html.j2"):
            assert (await one.stranger(path)).status_code == 404

    run(tmp_path, scenario)
