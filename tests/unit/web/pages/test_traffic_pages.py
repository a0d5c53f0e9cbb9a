"""Pages of what is published, and of the files that it comes from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from reconciler.steps.passing import Published
from reconciler.steps.rendering import compiled_of
from reconciler.web.pages.object_pages import ObjectPages, blob_of
from reconciler.web.pages.route_pages import RoutePages
from reconciler.web.pages.secret_pages import SecretPages, recipients_of
from reconciler.web.pages.traffic_pages import TrafficPages
from reconciler.web.traffic_views import TrafficViews
from schemas.changes_api import MAX_BODY, MAX_FILE
from schemas.problem import Problem
from tests.support.documents import HTPASSWD, SEALED, agent, deployment, document, fleet, route, secret, state_of, team
from tests.support.wax_changes import REVISION, WaxChanges, commit
from tests.unit.web.asking import WaxControl
from tests.unit.web.pages.visiting import Part, Visit, text_of, visit
from tests.unit.web.test_traffic_views import NoFigures

NASTY: Final = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'{{7*7}}\u202e javascript:alert(1)"
INERT: Final = "&lt;script&gt;alert(1)&lt;/script&gt;"
FILES: Final[dict[str, bytes | None]] = {
    "fleet.yaml": fleet(team("shop", agents=["vps-1", "vps-2"]), team("blog", hostnames=["blog.test"])),
    "agents/vps-1.yaml": agent("vps-1"),
    "agents/vps-2.yaml": agent("vps-2", address="10.0.0.2"),
    "deployments/shop/web.yaml": deployment("web", "vps-1", env={"X": NASTY}),
    "secrets/shop/users.yaml": secret("users", "htpasswd"),
    "routes/shop/web.yaml": route(
        "web",
        backends=[{"agent": "vps-1", "port": 8081, "weight": 3}, {"agent": "vps-2", "port": 8081}],
        middlewares=[{"headers": {"response": {"X-A": "<script>alert(1)</script>"}}}],
    ),
    "routes/shop/safe.yaml": document(
        "Route",
        "safe",
        {"type": "http", "backends": [{"deployment": "web"}], "middlewares": [
            {"basicAuth": {"secret": {"name": "users", "key": "htpasswd"}}}]},
        annotations={"note": NASTY},
        labels={"a": "b"},
    ),
}  # fmt: skip
HOST: Final = "web.app.cloudlunacy.test"


class Shop:
    """The pages over a fleet in memory."""

    def __init__(self) -> None:
        self.state = state_of(FILES)
        assert not list(self.state.quarantined)
        self.control = WaxControl(published=Published(1, "a" * 40, self.state))
        self.changes = WaxChanges(dict(FILES))
        self.views = TrafficViews(lambda: self.control.published, compiled_of, NoFigures(), lambda _: HTPASSWD)

    def parts(self, one: Visit) -> Sequence[Part]:
        published = lambda: self.control.published  # noqa: E731
        return (
            TrafficPages(one.site, self.views, self.changes, published),
            RoutePages(one.site, self.changes, published),
            ObjectPages(one.site, self.control, self.changes),
            SecretPages(one.site, self.changes, published),
        )


def run(data: Path, scenario: Callable[[Visit], Awaitable[object]], shop: Shop | None = None) -> None:
    found = shop or Shop()
    visit(data, found.parts, scenario, found.control)


def test_hosts_are_listed_with_who_answers(tmp_path: Path) -> None:
    """Shares, middlewares in words, and why there are no figures."""

    async def scenario(one: Visit) -> None:
        text = text_of(await one.get("/traffic"))
        for words in (HOST, "75 %", "25 %", "sets or removes response header X-A", "There is no front to ask."):
            assert words in text
        assert "2 hosts" in text
        assert "No host fits" in text_of(await one.get("/traffic?team=blog"))
        assert text_of(await one.get("/traffic?agent=vps-2")).count("serving") == 2  # the row, and the filter

    run(tmp_path, scenario)


def test_the_box_says_who_answers(tmp_path: Path) -> None:
    """With the file that brought it, and the commit."""
    shop = Shop()
    shop.changes.commits["routes/shop/web.yaml"] = (commit(NASTY, NASTY),)

    async def scenario(one: Visit) -> None:
        answer = await one.get(f"/traffic?url=http://{HOST}/x&method=POST&header=X-A:%20b")
        text = text_of(answer)
        for words in ("A backend answers it.", f"POST http://{HOST}/x", "routes/shop/web.yaml", REVISION[:10]):
            assert words in text
        assert INERT in answer.text
        assert "<script>alert" not in answer.text
        assert "The scheme is one of" in text_of(await one.get("/traffic?url=javascript:alert(1)//x://"))
        assert "Name: value" in text_of(await one.get(f"/traffic?url={HOST}&header=x"))

    run(tmp_path, scenario, shop)


def test_a_host_has_a_page(tmp_path: Path) -> None:
    """An unknown one says what to do."""

    async def scenario(one: Visit) -> None:
        answer = await one.get(f"/traffic/{HOST}")
        assert "Move traffic" in answer.text
        assert "Weight of vps-1:8081" in text_of(answer)
        assert "Move traffic" not in (await one.get(f"/traffic/{HOST}", "read")).text
        missing = await one.get("/traffic/nobody.test")
        assert (missing.status_code, "Nothing is published" in missing.text) == (404, True)

    run(tmp_path, scenario)


def test_traffic_is_moved_by_a_commit(tmp_path: Path) -> None:
    """Shown first, then committed in the person's name."""
    shop = Shop()
    wanted = {"path": "routes/shop/web.yaml", "weight:vps-1:8081": "0", "weight:vps-2:8081": "5"}

    async def scenario(one: Visit) -> None:
        path = f"/traffic/{HOST}/weights"
        shown = await one.post(path, {**wanted, "do": "check"})
        assert "changes backend" in text_of(shown)
        assert 'name="weight:vps-2:8081" value="5"' in shown.text
        assert shop.changes.submitted == []
        done = await one.post(path, {**wanted, "do": "commit", "message": "Move"})
        assert (done.status_code, done.headers["location"]) == (303, f"/revisions/{REVISION}")
        ((change, who),) = shop.changes.submitted
        edited = change.edits[0].text or ""
        assert ("weight: 0" in edited or '"weight": 0' in edited, "weight: 5" in edited, who) == (
            True,
            True,
            "operator:ann",
        )
        assert (await one.post(path, {**wanted, "weight:vps-1:8081": "-1"})).status_code == 400
        assert (await one.post(path, {**wanted, "path": "../x"})).status_code == 404
        assert (await one.post(path, wanted, "read")).status_code == 403

    run(tmp_path, scenario, shop)


def test_a_route_is_made_by_a_form(tmp_path: Path) -> None:
    """Fields are checked, the file is judged as CI does, and only the last step writes."""
    shop = Shop()
    wanted = {"team": "shop", "name": "new", "agent-1": "vps-1", "port-1": "8081", "tls": "none", "prefix": "/a"}

    async def scenario(one: Visit) -> None:
        assert "new.app" not in (await one.get("/routes/new")).text
        empty = await one.post("/routes/new", {"team": "shop"})
        assert (empty.status_code, "Give the route a name." in empty.text) == (422, True)
        wrong = await one.post("/routes/new", {**wanted, "agent-1": "vps-9"})
        assert wrong.status_code == 422
        assert 'id="agent-1-error"' in wrong.text
        taken = await one.post("/routes/new", {**wanted, "name": "web"})
        assert "There is a route of this name already." in taken.text
        shown = await one.post("/routes/new", wanted)
        assert "new host" in text_of(shown)
        assert shop.changes.submitted == []
        done = await one.post("/routes/new", {**wanted, "do": "commit"})
        assert done.headers["location"] == f"/revisions/{REVISION}"
        edit = shop.changes.submitted[0][0].edits[0]
        assert (edit.path, edit.expected) == ("routes/shop/new.yaml", "")
        assert "paths" in (edit.text or "")
        nobody = await one.get("/routes/new", "read")
        assert "You may write routes of no team." in nobody.text

    run(tmp_path, scenario, shop)


def test_a_file_is_shown_with_problems_at_their_lines(tmp_path: Path) -> None:
    """What a tenant wrote stays text."""
    shop = Shop()
    path = "routes/shop/safe.yaml"
    shop.control.kept_out = (Problem(file=path, line=1, code="x", message=NASTY, hint=NASTY),)
    shop.changes.commits[path] = (commit(NASTY, NASTY),)

    async def scenario(one: Visit) -> None:
        answer = await one.get(f"/objects/{path}")
        assert 'id="L1" class="bad"' in answer.text
        assert "<script>alert" not in answer.text
        assert "<img" not in answer.text
        assert "\u202e" not in answer.text
        assert "Deployment/shop/web" in text_of(answer)
        assert "Edit" not in text_of(await one.get(f"/objects/{path}", "read"))
        deployed = await one.get("/objects/deployments/shop/web.yaml")
        assert "<script>alert" not in deployed.text
        for wrong in ("/objects/routes/shop/none.yaml", "/objects/../etc/passwd", "/objects/x"):
            assert (await one.get(wrong)).status_code == 404

    run(tmp_path, scenario, shop)


def test_a_file_is_changed_by_a_form(tmp_path: Path) -> None:
    """Checked with what it does; 412 shows what somebody else wrote meanwhile."""
    shop = Shop()
    path = "routes/shop/web.yaml"
    text = (FILES[path] or b"").decode()

    async def scenario(one: Visit) -> None:
        form = await one.get(f"/objects/{path}?edit=1")
        assert f'name="blob" value="{blob_of(text)}"' in form.text
        wanted = {"text": text.replace("8081", "9090"), "blob": blob_of(text)}
        shown = await one.post(f"/objects/{path}", {**wanted, "do": "check"})
        assert 'class="add"' in shown.text
        assert "changes backend" in text_of(shown)
        done = await one.post(f"/objects/{path}", {**wanted, "do": "commit", "message": "Move it"})
        assert done.status_code == 303
        stale = await one.post(f"/objects/{path}", {**wanted, "blob": "0" * 40, "do": "commit"})
        assert stale.status_code == 412
        assert "beside the newest file" in stale.text
        broken = await one.post(f"/objects/{path}", {**wanted, "text": "spec: [" + NASTY, "do": "check"})
        assert "It cannot be committed like this." in broken.text
        assert 'value="commit"' not in broken.text
        assert "<script>alert" not in broken.text
        gone = await one.post(f"/objects/{path}", {"what": "delete", "blob": blob_of(text), "do": "check"})
        assert "turns 404" in text_of(gone)

    run(tmp_path, scenario, shop)


def test_secrets_show_no_value(tmp_path: Path) -> None:
    """Names, keys and who names them; not even what is sealed."""

    async def scenario(one: Visit) -> None:
        answer = await one.get("/secrets")
        text = text_of(answer)
        for words in ("shop/users", "htpasswd", "Route/shop/safe", "cloudlunacy secret seal"):
            assert words in text
        assert "BEGIN AGE" not in answer.text
        assert "No secret fits." in (await one.get("/secrets?text=zzz")).text

    run(tmp_path, scenario)


@pytest.mark.parametrize(("armoured", "count"), [(SEALED, 0), ("", 0), ("no base64 \x00", 0)])
def test_recipients_of_what_is_no_age_file(armoured: str, count: int) -> None:
    """Nothing is counted, and nothing fails."""
    assert recipients_of(armoured) == count


def test_the_largest_file_fits_into_a_form_and_more_is_told_on_a_page(tmp_path: Path) -> None:
    """Each character of it becomes up to six; a form of another page may be no larger than any other body."""

    async def scenario(one: Visit) -> None:
        path, text = "/objects/routes/shop/web.yaml", FILES["routes/shop/web.yaml"] or b""
        largest = {"text": "é" * MAX_FILE, "blob": blob_of(text.decode()), "do": "check"}
        shown = await one.post(path, largest)
        assert (shown.status_code, "é" * 100 in shown.text) == (200, True)
        for wrong in (
            await one.post(path, {"text": "x" * (MAX_BODY + 1), "do": "check"}),
            await one.post(f"/traffic/{HOST}/weights", {"text": "x" * MAX_FILE}),
        ):
            assert wrong.status_code == 413
            assert wrong.headers["connection"] == "close"
            assert "The body is too large." in text_of(wrong)
        strange = await one.send("POST", "/api/v1/nothing", {}, content=b"x" * (MAX_FILE + 1))
        assert (strange.status_code, strange.headers["content-type"]) == (413, "application/problem+json")

    run(tmp_path, scenario)


@pytest.mark.parametrize("path", ["/traffic", f"/traffic/{HOST}", "/routes/new", "/secrets", "/objects/fleet.yaml"])
def test_strangers_are_led_to_the_login(tmp_path: Path, path: str) -> None:
    """No page of these says anything to who is not logged in."""

    async def scenario(one: Visit) -> None:
        answer = await one.stranger(path)
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/login")

    run(tmp_path, scenario)


def test_a_secret_is_shown_without_what_is_sealed(tmp_path: Path) -> None:
    """Its keys and lines are there; it is set by a command, not here."""

    async def scenario(one: Visit) -> None:
        answer = await one.get("/objects/secrets/shop/users.yaml")
        assert "htpasswd" in answer.text
        assert "(sealed)" in answer.text
        assert "BEGIN AGE" not in answer.text
        assert "edit=1" not in answer.text
        assert 'name="text"' not in (await one.get("/objects/secrets/shop/users.yaml?edit=1")).text

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/objects/routes/shop/web.yaml", {"text": "a", "blob": "no id"}),
        ("/objects/routes/shop/web.yaml", {"text": "a", "message": "m" * 4001}),
        (f"/traffic/{HOST}/weights", {"path": "routes/shop/web.yaml", "base": "no id"}),
        (f"/traffic/{HOST}/weights", {"path": "routes/shop/web.yaml", "message": "m" * 4001}),
        ("/routes/new", {"team": "shop", "name": "new", "agent-1": "vps-1", "port-1": "80", "message": "m" * 4001}),
    ],
)
def test_fields_that_no_change_has_room_for_are_refused(tmp_path: Path, path: str, fields: dict[str, str]) -> None:
    """In a sentence, and not by a bug."""

    async def scenario(one: Visit) -> None:
        answer = await one.post(path, {**fields, "do": "commit"})
        assert answer.status_code == 422
        assert "too long" in answer.text or "cannot be read" in answer.text

    run(tmp_path, scenario)
